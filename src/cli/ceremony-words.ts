import type { CeremonyFile, TokenSettings } from '#ceremony/ceremony-file.ts'
import type { CeremonyInputs } from '#ceremony/inputs.ts'
import { type CeremonyPlan, sha256 } from '#ceremony/plan.ts'
import { type Certificate, describe } from '#pki/certificate.ts'
import { certificateWords } from './certificate-words.ts'
import { blocks, fields, timeText } from './print.ts'

/** What a ceremony will do and sign, for people. */
export function planLines(
  ceremony: CeremonyFile,
  inputs: CeremonyInputs,
  plan: CeremonyPlan,
): readonly string[] {
  const { unsigned, toBeSigned } = plan.draft
  return blocks([
    fields([
      ['ceremony', `${ceremony.kind} of trust domain ${ceremony.trust_domain}`],
      ['key', keyText(ceremony)],
      ['signed by', inputs.issuer === undefined ? 'the key itself' : signerText(ceremony, inputs)],
      ['writes', Object.values(ceremony.outputs).filter(Boolean).join(', ')],
      ['operators', operatorsText(ceremony)],
    ]),
    ['the certificate', ...certificateLines(unsigned, plan).map((line) => `  ${line}`)],
    [
      `the ${toBeSigned.length} bytes to be signed${plan.hasPlaceholder ? ', with zeros for the key that does not exist yet' : ''}`,
      ...(toBeSigned.toHex().match(/.{1,96}/g) ?? []).map((line) => `  ${line}`),
    ],
    [
      'rules',
      ...plan.findings.map(({ rule, problem }) =>
        problem === undefined ? `  ok      ${rule}` : `  BROKEN  ${rule}: ${problem}`,
      ),
    ],
    [`SHA-256 of these bytes  ${plan.tbsSha256}`],
  ])
}

/** Every field of a certificate, signed or not. */
function certificateLines(certificate: Certificate, plan: CeremonyPlan): readonly string[] {
  const words = certificateWords(certificate)
  const { basicConstraints, subjectKeyId, authorityKeyId } = certificate
  const { pathLength } = basicConstraints ?? {}
  const critical = (id: string): string =>
    words.extensions.some((one) => one.id === id && one.critical) ? ' (critical)' : ''
  const newKey = plan.hasPlaceholder
    ? ', made in the ceremony'
    : `, SHA-256 ${sha256(certificate.publicKey)}`
  return fields([
    ['version', String(certificate.version)],
    ['serial number', `${serialText(certificate)} (${certificate.serialNumber})`],
    ['signature algorithm', words.signedWith],
    ['issuer', words.issuer],
    ['valid from', timeText(certificate.notBeforeSeconds)],
    ['valid to', timeText(certificate.notAfterSeconds)],
    ['subject', words.subject],
    ['public key', `${words.key}${newKey}`],
    [`key usage${critical('2.5.29.15')}`, words.usages.join(', ')],
    [
      `basic constraints${critical('2.5.29.19')}`,
      `${words.isCa ? 'CA' : 'no CA'}, path length ${pathLength ?? 'not limited'}`,
    ],
    [
      'subject key identifier',
      plan.hasPlaceholder ? 'SHA-1 of the key' : (subjectKeyId?.toHex() ?? 'none'),
    ],
    ['authority key identifier', authorityKeyId?.toHex() ?? 'none'],
    [
      `subject alternative name${critical('2.5.29.17')}`,
      words.uris.map((uri) => `URI ${uri}`).join(', '),
    ],
  ])
}

/** As it is written in a ceremony's file: whole bytes in hex. */
function serialText({ serialNumber }: Certificate): string {
  const hex = BigInt(serialNumber).toString(16)
  return hex.padStart(hex.length + (hex.length % 2), '0')
}

function keyText({ key }: CeremonyFile): string {
  switch (key.kind) {
    case 'generate':
      return `a new ${key.type} pair "${key.label}", made on ${tokenText(key)}`
    case 'existing':
      return `the pair "${key.label}" that is on ${tokenText(key)}, public key in ${key.public_key_file}`
    case 'public_key':
      return `the public key in ${key.file}`
    case 'csr':
      return `the public key of the request in ${key.file}`
  }
}

const signerText = ({ issuer }: CeremonyFile, inputs: CeremonyInputs): string =>
  issuer === undefined || inputs.issuer === undefined
    ? ''
    : `${describe(inputs.issuer)} with the pair "${issuer.label}" on ${tokenText(issuer)}`

const tokenText = ({ token_label, token_serial, module }: TokenSettings): string =>
  `token "${token_label}"${token_serial === undefined ? '' : ` serial ${token_serial}`} (${module})`

function operatorsText({ operators }: CeremonyFile): string {
  const names = [...operators.public_keys.keys()]
  if (names.length === 0) return 'nobody signs the transcript'
  return `${operators.required} of ${names.join(', ')} must sign the transcript`
}
