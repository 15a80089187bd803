import { messageOf } from '#base/errors.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { parsePem } from '#pki/pem.ts'
import { bundleFromPem } from '#spiffe/bundle.ts'
import { parseBundle } from '#spiffe/bundle-json.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import { type CertificateWords, certificateWords } from '../certificate-words.ts'
import {
  type Command,
  type CommandContext,
  choice,
  nowSeconds,
  optional,
  readNamed,
  UsageError,
} from '../command.ts'
import { blocks, count, fields, timeLeftText, timeText, visible } from '../print.ts'
import { type CertificateVerdict, verifyCertificate } from '../verify-certificates.ts'

const policies = ['prefer', 'require'] as const

interface Inspected {
  readonly certificate: Certificate
  readonly words: CertificateWords
  readonly verdict: CertificateVerdict | undefined
}

/** @throws SyntaxError that names the file and the certificate. */
function readCertificates(pem: string, path: string): Certificate[] {
  const found = parsePem(pem, 'CERTIFICATE')
  if (found.length === 0) {
    throw new SyntaxError(`cannot inspect ${path}: it holds no PEM block CERTIFICATE`)
  }
  return found.map((der, index) => {
    try {
      return parseCertificate(der)
    } catch (cause) {
      const why = messageOf(cause)
      throw new SyntaxError(`cannot inspect ${path}: certificate ${index + 1}: ${why}`, { cause })
    }
  })
}

/** The authorities of a bundle, PEM or a SPIFFE bundle document. */
async function readAuthorities(context: CommandContext, path: string): Promise<Certificate[]> {
  const content = await readNamed(context, path)
  // A bundle document does not say whose it is, and here it does not matter.
  const anyone: TrustDomain = parseTrustDomain('any')
  const bundle = content.trimStart().startsWith('{')
    ? parseBundle(content, anyone)
    : bundleFromPem(anyone, content)
  return bundle.x509Authorities.map(({ certificate }) => parseCertificate(certificate))
}

const record = ({ certificate, words, verdict }: Inspected) => ({
  spiffe_id: words.uris.find((uri) => uri.startsWith('spiffe://')),
  uris: words.uris,
  dns_names: words.dnsNames,
  subject: words.subject,
  issuer: words.issuer,
  serial_number: words.serialNumber,
  not_before: timeText(certificate.notBeforeSeconds),
  not_after: timeText(certificate.notAfterSeconds),
  key: words.key,
  signed_with: words.signedWith,
  ca: words.isCa,
  key_usages: words.usages,
  purposes: words.purposes,
  subject_key_id: certificate.subjectKeyId?.toHex(),
  authority_key_id: certificate.authorityKeyId?.toHex(),
  extensions: words.extensions,
  pq_key: words.pqKey,
  pq_signature: words.pqSignature,
  bytes: words.bytes,
  ...(verdict && {
    verification: {
      classical: verdict.classical,
      pq: verdict.pq,
      issuers: verdict.issuers,
      detail: verdict.detail,
    },
  }),
})

function lines({ certificate, words, verdict }: Inspected, now: number): readonly string[] {
  const begins = certificate.notBeforeSeconds
  return fields([
    ...words.uris.map((uri): [string, string] => [
      uri.startsWith('spiffe://') ? 'SPIFFE ID' : 'URI',
      uri,
    ]),
    ['DNS names', words.dnsNames.join(', ')],
    ['Subject', words.subject],
    ['Issuer', words.issuer],
    ['Serial number', words.serialNumber],
    ['Valid from', begins > now ? timeLeftText(begins, now) : timeText(begins)],
    ['Valid until', timeLeftText(certificate.notAfterSeconds, now)],
    ['Authority', words.isCa ? 'yes' : 'no'],
    ['Key', words.key],
    ['Key usage', words.usages.join(', ')],
    ['Purposes', words.purposes.join(', ')],
    ['Key identifier', certificate.subjectKeyId?.toHex() ?? ''],
    ['Issuer’s', certificate.authorityKeyId?.toHex() ?? ''],
    ['Signed with', words.signedWith],
    ['Post-quantum', `key ${words.pqKey}, signature ${words.pqSignature}`],
    [
      'Extensions',
      words.extensions
        .map(({ name, critical }) => (critical ? `${name} (critical)` : name))
        .join(', '),
    ],
    ['Size', `${words.bytes} bytes`],
    ...(verdict === undefined ? [] : verdictLines(verdict)),
  ])
}

function verdictLines({ classical, pq, detail, issuers }: CertificateVerdict): [string, string][] {
  return [
    [
      'Verified',
      classical === 'verified'
        ? `yes, by ${issuers.join(', by ')}`
        : classical === 'none'
          ? 'by ML-DSA alone'
          : 'no',
    ],
    ['Verified PQ', pqVerdict({ classical, pq, issuers })],
    ['Why', detail],
  ]
}

function pqVerdict({
  classical,
  pq,
  issuers,
}: Pick<CertificateVerdict, 'classical' | 'pq' | 'issuers'>): string {
  if (pq === undefined) return ''
  if (pq === 'absent') return 'no: there is no post-quantum signature'
  if (pq !== 'verified') return `no: ${pq}`
  return classical === 'none' ? `yes, by ${issuers.join(', by ')}` : 'yes'
}

/** Whether a script may go on with it. */
function isAccepted(verdict: CertificateVerdict, policy: 'prefer' | 'require'): boolean {
  const { classical, pq } = verdict
  if (classical === 'none') return pq === 'verified'
  return classical === 'verified' && (pq === 'verified' || (pq === 'absent' && policy === 'prefer'))
}

export const inspect: Command = {
  name: 'x509 inspect',
  summary: 'what certificates say, in words, and whether their signatures hold',
  positionals: 'FILE',
  options: [
    {
      name: 'bundle',
      value: 'FILE',
      summary: 'verify by the authorities in it: PEM, or a SPIFFE bundle document',
    },
    {
      name: 'pq-policy',
      value: 'POLICY',
      choices: policies,
      summary: 'post-quantum signatures: prefer (may be absent, default) or require',
    },
  ],
  details: `
FILE holds PEM certificates; '-' is standard input. With a bundle, each of them is verified with the others
as intermediates: the classical signatures up to an authority of the bundle, and the ML-DSA signatures by the
keys that begin with that authority's. Exit status 4 when one is refused.

  assay x509 inspect svid.pem --bundle bundle.pem --pq-policy require`,
  async run(context) {
    const [path] = context.positionals
    if (path === undefined) throw new UsageError("'assay x509 inspect' needs a FILE, or -")
    const policy = choice(context, 'pq-policy', policies)
    const bundlePath = optional(context, 'bundle')
    if (bundlePath === undefined && optional(context, 'pq-policy') !== undefined) {
      throw new UsageError('--pq-policy needs --bundle: without one nothing is verified')
    }
    const certificates = readCertificates(await readNamed(context, path), path)
    const authorities =
      bundlePath === undefined ? undefined : await readAuthorities(context, bundlePath)
    const now = nowSeconds(context)
    const inspected = certificates.map((certificate): Inspected => {
      const others = certificates.filter((other) => other !== certificate)
      const verdict =
        authorities && verifyCertificate(certificate, { others, authorities, nowSeconds: now })
      return { certificate, words: certificateWords(certificate), verdict }
    })
    const refused = inspected.filter(
      ({ verdict }) => verdict !== undefined && !isAccepted(verdict, policy),
    )
    if (refused.length > 0) context.setStatus(4)
    if (context.json) return context.print(JSON.stringify(inspected.map(record)))
    const groups = inspected.map((one) => lines(one, now).map(visible))
    for (const line of blocks(groups)) context.print(line)
    if (authorities === undefined) context.note('nothing was verified: give --bundle FILE')
    else context.note(`${count(refused.length, 'certificate')} of ${inspected.length} refused`)
  },
}
