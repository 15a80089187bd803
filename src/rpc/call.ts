import type { PqState } from '#pq-crypto/alternative-chain.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** A local process at the other end of a Unix socket, as the kernel vouched for it at accept. */
export interface UnixPeer {
  readonly kind: 'unix'
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** Supplementary groups, where the listener reads them. */
  readonly groups?: readonly number[]
  /** A pidfd of the process, open as long as the connection; undefined where the kernel has none to give. */
  readonly pidfd: number | undefined
  /** Start time of the process in clock ticks since boot (field 22 of /proc/PID/stat), read at accept. */
  readonly startTime: bigint
}

/** The other end of a TLS connection. */
export interface TlsPeer {
  readonly kind: 'tls'
  /** IP address without port. */
  readonly address: string
  /** The verified SPIFFE ID, or undefined when the peer showed no certificate. */
  readonly spiffeId: SpiffeId | undefined
  /** The verified leaf, DER, present exactly when `spiffeId` is. */
  readonly certificate: Uint8Array | undefined
  /** Serial number of the leaf, decimal; empty without one. */
  readonly serialNumber: string
  /** Unix time at which the leaf expires; zero without one. */
  readonly expiresAtSeconds: number
  /** The group the keys of the connection are from: `X25519MLKEM768`. */
  readonly keyAgreement: string
  /** What was found of the post-quantum signatures of its certificates; undefined: they were not looked at. */
  readonly pq: PqState | undefined
  /** Keying material of the connection (RFC 8446 §7.5). */
  exporter(label: string, length: number): Uint8Array
}

export type Peer = UnixPeer | TlsPeer

/** What a service knows about the call it answers. */
export interface CallContext {
  readonly peer: Peer
  /** `/spire.api.server.entry.v1.Entry/ListEntries`. */
  readonly method: string
  /** Aborts when the client cancels, goes away, or its deadline passes. */
  readonly signal: AbortSignal
  /** Values of one request header (lower-case name), in order; empty when absent. */
  metadata(name: string): readonly string[]
  /**
   * One a call: the same in every log line and audit record about it, and sent back as `assay-request-id`. Random, or as
   * a client with a SPIFFE ID has named it.
   */
  readonly requestId: string
}

/** A message that is already encoded: it goes out as it is. */
export class Encoded {
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
}
