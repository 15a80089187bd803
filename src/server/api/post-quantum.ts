import { AssayError } from '#base/errors.ts'
import { type Csr, parseCsr } from '#pki/csr.ts'
import { verifyMlDsaCsr } from '#pq-crypto/ml-dsa-certificate.ts'
import { isPqHint } from '#spiffe/pq-hint.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { BundleCache } from '../bundle/bundle-cache.ts'
import { bundleMessage, noBundle } from './bundle-messages.ts'
import { malformed } from './messages.ts'
import { pqMessage } from './pq-messages.ts'
import { newJwtSvid, newX509Batch, type SvidServiceDependencies } from './svid.ts'

export interface PostQuantumServiceDependencies
  extends Pick<SvidServiceDependencies, 'entries' | 'authority' | 'holdings'> {
  readonly trustDomain: TrustDomain
  readonly bundles: Pick<BundleCache, 'bundle'>
}

/** `assay.server.v1.PostQuantum`: SVIDs by ML-DSA alone for the entries that ask for them, and their bundle. */
export function newPostQuantumService(dependencies: PostQuantumServiceDependencies) {
  const { trustDomain, bundles, authority } = dependencies
  return {
    async getBundle() {
      const bundle = bundles.bundle(trustDomain) ?? noBundle(trustDomain)
      return { bundle: bundleMessage(bundle), pq: pqMessage(bundle) }
    },

    batchNewX509SVID: newX509Batch({
      ...dependencies,
      check: requirePq,
      readCsr: readPqCsr,
      issue: (request) => authority.issuePqX509Svid(request),
    }),

    newJWTSVID: newJwtSvid({
      ...dependencies,
      check: requirePq,
      issue: (request) => authority.issuePqJwtSvid(request),
    }),
  }
}

function requirePq({ id, hint }: RegistrationEntry): void {
  if (isPqHint(hint)) return
  throw new AssayError(
    'failed-precondition',
    `cannot issue a post-quantum SVID for entry ${id}: its hint is neither "pq" nor begins with "pq:"`,
    { reason: 'no-pq-entry' },
  )
}

/** @throws AssayError `invalid-argument` when it cannot be read or is not signed by the ML-DSA key it names. */
function readPqCsr(der: Uint8Array): Csr {
  let csr: Csr
  try {
    csr = parseCsr(der)
  } catch (error) {
    throw malformed('CSR', error)
  }
  verifyMlDsaCsr(csr)
  return csr
}
