import { createRequire } from 'node:module'
import { AssayError } from '#base/errors.ts'

/** The addon `assay_host` (native/host/host.c). Errors carry the errno name as `code`. */
export interface HostAddon {
  /** Process, user and group that called connect(2) on the other end of a Unix socket. */
  peerCredentials(fd: number): [pid: number, uid: number, gid: number]
  /** A pidfd of that process. `ENOPROTOOPT` before Linux 6.5; `ESRCH` or `EINVAL` when the process is gone. */
  peerPidfd(fd: number): number
  /** Its supplementary groups, as of connect(2). `ENOPROTOOPT` before Linux 4.13. */
  peerGroups(fd: number): number[]
  pidfdOpen(pid: number): number
  pidfdAlive(pidfd: number): boolean
  /** The two ends of a new Unix stream socket. */
  socketPair(): [fd: number, fd: number]
  sendDatagram(path: string, text: string): void
  forbidCoreDumps(): void
  /** Kills this process `graceMs` after the other end of that socket was closed. */
  endWithPeer(fd: number, graceMs: number): void
  /** C_Login in a module that is loaded from that path; returns CKR_…. */
  pkcs11Login(modulePath: string, session: Uint8Array, pin: Uint8Array): number
}

let loaded: HostAddon | undefined

/**
 * The addon, loaded at the first call.
 *
 * @throws AssayError `failed-precondition` when it has not been compiled.
 */
export function hostAddon(): HostAddon {
  if (loaded === undefined) {
    try {
      loaded = createRequire(import.meta.url)('#native/assay_host.node') as HostAddon
    } catch (cause) {
      throw notBuilt(cause)
    }
  }
  return loaded
}

function notBuilt(cause: unknown): AssayError {
  return new AssayError(
    'failed-precondition',
    'cannot load the native addon assay_host.node: in a checkout run scripts/build-addons, else install the package assay-common again',
    { cause },
  )
}
