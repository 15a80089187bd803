import type { Selector } from '#spiffe/selector.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** One attestation as the server's half of a node attestor sees it. */
export interface AttestationExchange {
  /** The first message of the agent, as sent: attacker-sized, at most 1 MiB. */
  readonly payload: Uint8Array
  /** The certificate request that came with it, DER. Its signature has been checked. */
  readonly csr: Uint8Array
  /** SubjectPublicKeyInfo of the request's key, DER. */
  readonly csrPublicKey: Uint8Array
  /** The agent's address without port, for limits and records. */
  readonly peerAddress: string
  /**
   * Keying material of the TLS connection the agent is on (RFC 8446 §7.5), or undefined where there is no TLS.
   */
  tlsExporter(label: string, length: number): Uint8Array | undefined
  /** Sends a challenge and waits for the response to it. */
  challenge(challenge: Uint8Array): Promise<Uint8Array>
  /** Aborts when the agent goes away or the attestation takes too long. */
  readonly signal: AbortSignal
}

/** What an attestation has proved. */
export interface AttestedNode {
  /** Below `/spire/agent/<type>/`. */
  readonly agentId: SpiffeId
  /** Sorted, without repetition. */
  readonly selectors: readonly Selector[]
  /** Whether the node can prove itself again at any time. If not, it lives by renewing its SVID. */
  readonly canReattest: boolean
  /**
   * Throws an `AssayError` when the node may no longer be admitted. It is asked once the node is recorded, and its
   * no bans the node: what an operator said while the attestation went on must not be lost.
   */
  confirm?(): Promise<void>
}

/**
 * The server's half of one way for a node to prove itself. It throws for every failed check an `AssayError`
 * with a `reason` of its own (`permission-denied` for evidence that does not prove, `invalid-argument` for
 * evidence that cannot be read), and returns only when everything was proved.
 */
export interface NodeAttestor {
  /** As in the agent ID and in `AttestationData.type`: `tpm`, `join_token`. */
  readonly type: string
  attest(exchange: AttestationExchange): Promise<AttestedNode>
}
