import { hostAddon } from './native.ts'

/**
 * Has this process killed (SIGKILL) `graceMs` after the peer of the connected socket `fd` has gone, whatever it does
 * then: also while it hangs in a call of somebody else's library, where no event loop turns.
 */
export function endWithPeer(fd: number, graceMs: number): void {
  hostAddon().endWithPeer(fd, graceMs)
}
