import type { Clock } from '#base/clock.ts'
import { type Connection, connectUnix } from '#rpc/client.ts'
import { parseEndpoint } from '#rpc/endpoint.ts'

/**
 * Connects to a Workload API by its address, `unix:///path` (SPIFFE Workload Endpoint §4).
 *
 * @throws SyntaxError when the address is not well-formed.
 * @throws RangeError for `tcp://`: an agent tells local processes apart by their socket, which TCP has not.
 */
export function connectEndpoint(address: string, clock: Clock): Connection {
  const endpoint = parseEndpoint(address)
  if (endpoint.kind === 'tcp') {
    throw new RangeError(
      `cannot connect to ${address}: Assay serves the Workload API on Unix sockets only`,
    )
  }
  return connectUnix(endpoint.path, { clock })
}
