import { parseCertificate } from '#pki/certificate.ts'
import type { Connection } from '#rpc/client.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { fingerprintOf } from './setup/pinned-bundle.ts'
import { bundleFromWire } from './wire.ts'

/**
 * Fingerprints of a server's X.509 authorities: first the one that signed its own SVID, by which it is known to who
 * connects. After a rotation that is the old one for a while.
 */
export async function authorityFingerprints(
  connection: Connection,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const [message, { serverSvidAuthorityId }] = await Promise.all([
    connection.client(BundleDefinition).getBundle({}, { signal }),
    connection.client(OverviewDefinition).get({}, { signal }),
  ])
  const signs = (der: Uint8Array): boolean =>
    parseCertificate(der).subjectKeyId?.toHex() === serverSvidAuthorityId
  const ders = bundleFromWire(message).x509Authorities.map(({ certificate }) => certificate)
  return [...ders.filter(signs), ...ders.filter((der) => !signs(der))].map(fingerprintOf)
}
