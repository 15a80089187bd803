import { hash } from 'node:crypto'
import { AssayError } from '#base/errors.ts'
import { type CaCertificateDraft, draftCaCertificate } from '#issuance/ca-certificate.ts'
import type { KeyType } from '#pki/private-key.ts'
import { ecPublicKeyInfo, rsaPublicKeyInfo } from '#pki/public-key.ts'
import { type CeremonyFile, subjectOf } from './ceremony-file.ts'
import type { CeremonyInputs } from './inputs.ts'
import { type Finding, lintCaCertificate } from './lints.ts'

/** What a ceremony will sign, before anything is made. */
export interface CeremonyPlan {
  readonly draft: CaCertificateDraft
  /** The key does not exist yet: in `draft` there are zeros in its place, and the identifier made of them. */
  readonly hasPlaceholder: boolean
  /** SHA-256 of what `draft` signs, lower-case hex: what everybody agrees to. */
  readonly tbsSha256: string
  readonly findings: readonly Finding[]
}

/** Works out what a ceremony will sign. Pure: the same file and inputs come to the same, down to the last byte. */
export function planCeremony(ceremony: CeremonyFile, inputs: CeremonyInputs): CeremonyPlan {
  const { key } = ceremony
  const publicKey =
    inputs.publicKey ?? placeholderKey(key.kind === 'generate' ? key.type : 'ec-p256')
  const draft = draftFor(ceremony, inputs, publicKey)
  return {
    draft,
    hasPlaceholder: inputs.publicKey === undefined,
    tbsSha256: sha256(draft.toBeSigned),
    findings: lintCaCertificate(draft.unsigned, {
      issuer: inputs.issuer,
      trustDomain: ceremony.trust_domain,
    }),
  }
}

/** The certificate of a ceremony for a key that exists (SubjectPublicKeyInfo, DER). */
export function draftFor(
  { certificate, trust_domain: trustDomain }: CeremonyFile,
  { issuer }: Pick<CeremonyInputs, 'issuer'>,
  publicKey: Uint8Array,
): CaCertificateDraft {
  return draftCaCertificate(
    {
      trustDomain,
      subject: subjectOf(certificate),
      serialNumber: certificate.serial_number,
      notBeforeSeconds: certificate.not_before,
      notAfterSeconds: certificate.not_after,
      publicKey,
      pathLength: certificate.path_length,
    },
    issuer,
  )
}

/**
 * Refuses what must not be signed: rules that are broken, and, where a hash was agreed to, anything else than it.
 *
 * @throws AssayError `failed-precondition`, reason `ceremony-lint` or `ceremony-unexpected`.
 */
export function approvePlan(plan: CeremonyPlan, expected: readonly (string | undefined)[]): void {
  refuseFindings(plan.findings)
  for (const hash of expected) {
    if (hash === undefined || hash.toLowerCase() === plan.tbsSha256) continue
    throw new AssayError(
      'failed-precondition',
      `cannot go on: SHA-256 ${hash} was agreed to, and what would be signed has ${plan.tbsSha256}; see 'assay ceremony plan'`,
      { reason: 'ceremony-unexpected' },
    )
  }
}

/** @throws AssayError `failed-precondition`, reason `ceremony-lint`, that names every rule that is broken. */
export function refuseFindings(findings: readonly Finding[]): void {
  const broken = findings.filter(({ problem }) => problem !== undefined)
  if (broken.length === 0) return
  const list = broken.map(({ rule, problem }) => `${rule}: ${problem}`).join('; ')
  throw new AssayError('failed-precondition', `cannot sign this certificate: ${list}`, {
    reason: 'ceremony-lint',
  })
}

/** Lower-case hex. */
export const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'hex')

/** A key of zeros, as long as a real one of its type, so that all around it stands where it will stand. */
function placeholderKey(type: KeyType): Uint8Array {
  switch (type) {
    case 'ec-p256':
    case 'ec-p384': {
      const point = new Uint8Array(type === 'ec-p256' ? 65 : 97)
      point[0] = 4
      return ecPublicKeyInfo(type === 'ec-p256' ? 'P-256' : 'P-384', point)
    }
    case 'rsa-2048':
    case 'rsa-3072':
    case 'rsa-4096': {
      const modulus = new Uint8Array(Number(type.slice('rsa-'.length)) / 8)
      modulus[0] = 0x80
      return rsaPublicKeyInfo(modulus, Uint8Array.of(1, 0, 1))
    }
  }
}
