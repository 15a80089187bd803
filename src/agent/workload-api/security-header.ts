import { AssayError } from '#base/errors.ts'
import type { Interceptor } from '#rpc/service.ts'

/**
 * Refuses calls of the Workload API, and of its post-quantum counterpart, without the header `workload.spiffe.io: true`, exactly once (SPIFFE Workload
 * Endpoint §5). Other services on the socket do not need it.
 */
export const requireSecurityHeader: Interceptor = async ({ context }, next) => {
  if (/^\/(SpiffeWorkloadAPI|assay\.workload\.v1\.PostQuantum)\//.test(context.method)) {
    const [value, ...more] = context.metadata('workload.spiffe.io')
    if (value !== 'true' || more.length > 0) {
      throw new AssayError('invalid-argument', 'security header missing from request', {
        reason: 'security-header-missing',
      })
    }
  }
  await next()
}
