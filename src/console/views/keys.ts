import type { Connection } from '#rpc/client.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'

/** Whether signing works, the authorities and their keys, how far the bundle has come, and rotations under way. */
export async function keysView(connection: Connection, signal: AbortSignal) {
  const status = await connection.client(KeysDefinition).getStatus({}, { signal })
  const { propagation } = status
  return {
    state: status.state,
    detail: status.detail,
    where: status.where,
    pqWhere: status.pqWhere,
    keys: status.keys,
    rotations: status.rotations,
    propagation: {
      // 64 bits: not a number in JSON.
      sequenceNumber: String(propagation?.bundleSequenceNumber ?? 0n),
      live: propagation?.live ?? 0,
      acknowledged: propagation?.acknowledged ?? 0,
      lacking: propagation?.lacking ?? [],
      away: propagation?.away ?? 0,
    },
  }
}
