import { draftCaCertificate } from '#issuance/ca-certificate.ts'
import { backdateSeconds } from '#issuance/template.ts'
import type { Certificate } from '#pki/certificate.ts'
import type { NameAttribute } from '#pki/name.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { SigningKey } from '../plugin/key-manager/key-manager.ts'
import { signForX509 } from './signer.ts'

/** What the certificate of a new authority is to say. */
export interface AuthorityCertificateOptions {
  readonly trustDomain: TrustDomain
  /** Without a serialNumber attribute it gets the certificate's serial number. */
  readonly subject: readonly NameAttribute[]
  readonly serialNumber: Uint8Array
  readonly nowSeconds: number
  readonly ttlSeconds: number
}

/** Makes the self-signed certificate of a new authority, whose SPIFFE ID is `spiffe://<trust domain>`. */
export async function issueRootCertificate(
  key: SigningKey,
  { nowSeconds, ttlSeconds, ...options }: AuthorityCertificateOptions,
): Promise<Certificate> {
  const draft = draftCaCertificate({
    ...options,
    notBeforeSeconds: nowSeconds - backdateSeconds,
    notAfterSeconds: nowSeconds + ttlSeconds,
    publicKey: new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' })),
  })
  return draft.finish(await signForX509(key, draft.toBeSigned))
}
