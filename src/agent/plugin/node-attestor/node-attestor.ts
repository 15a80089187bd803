/** One attestation as the agent's half of a node attestor sees it. */
export interface AttestationExchange {
  /** SubjectPublicKeyInfo of the key the agent's new SVID is asked for, DER. */
  readonly csrPublicKey: Uint8Array
  /** Keying material of the TLS connection to the server (RFC 8446 §7.5). */
  tlsExporter(label: string, length: number): Uint8Array
  readonly signal: AbortSignal
}

/** An attestation under way: the first message, then an answer to each challenge. */
export interface Attestation extends AsyncDisposable {
  readonly payload: Uint8Array
  /** @throws AssayError when the device that proves the node does not work. */
  respond(challenge: Uint8Array): Promise<Uint8Array>
}

/** Whether the device that proves the node works. */
export interface NodeAttestorStatus {
  readonly state: 'ok' | 'failed'
  /** For people; empty when `ok`. */
  readonly detail: string
}

/** The agent's half of one way for a node to prove itself. */
export interface NodeAttestor {
  /** As in `AttestationData.type`: `tpm`, `join_token`. */
  readonly type: string
  /** Starts an attestation; the caller disposes of it when it ends either way. */
  attest(exchange: AttestationExchange): Promise<Attestation>
  status(): NodeAttestorStatus
}
