import { Socket } from 'node:net'
import { hostAddon } from './native.ts'

/**
 * Two sockets of this process that are connected to each other. The caller closes both.
 *
 * @throws Error `EMFILE` when no more descriptors may be open.
 */
export function openSocketPair(): [Socket, Socket] {
  const [one, other] = hostAddon().socketPair()
  return [new Socket({ fd: one }), new Socket({ fd: other })]
}
