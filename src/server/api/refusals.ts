import type { ListRefusalsRequest } from '#rpc/gen/assay/server/v1/refusals.ts'
import type { Audit } from '#telemetry/audit.ts'
import { malformed } from './messages.ts'

/** `assay.server.v1.Refusals`: why nodes were refused lately. */
export function newRefusalsService(audit: Pick<Audit, 'refusals'>) {
  return {
    async list({ limit }: ListRefusalsRequest) {
      if (limit < 0) throw malformed('limit', 'it is negative')
      return {
        refusals: audit.refusals(limit).map(({ atSeconds, ...refusal }) => ({
          ...refusal,
          at: atSeconds,
        })),
      }
    },
  }
}
