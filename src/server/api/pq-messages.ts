import { parseCertificate, subjectKeyId } from '#pki/certificate.ts'
import { PqAuthorities } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { lengthDelimited } from './protobuf-fields.ts'

/** The post-quantum keys of a bundle on the wire. */
export const pqMessage = ({ x509Authorities, jwtAuthorities }: Bundle): PqAuthorities => ({
  x509: x509Authorities.flatMap(({ certificate, pq }) =>
    pq === undefined ? [] : [{ authorityId: authorityIdOf(certificate), certificate: pq }],
  ),
  jwt: jwtAuthorities.flatMap(({ keyId, pq }) =>
    pq === undefined ? [] : [{ authorityId: keyId, ...pq }],
  ),
})

/** {@link pqMessage} as field `field` of another message. */
export const pqField = (field: number, bundle: Bundle): Uint8Array =>
  lengthDelimited(field, PqAuthorities.encode(pqMessage(bundle)).finish())

/** As agents name an authority. */
function authorityIdOf(der: Uint8Array): string {
  const { subjectKeyId: named, publicKey } = parseCertificate(der)
  return (named ?? subjectKeyId(publicKey)).toHex()
}
