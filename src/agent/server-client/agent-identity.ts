import type { KeyObject } from 'node:crypto'
import { parseCertificate } from '#pki/certificate.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { spiffeIdOf } from '#spiffe/x509-svid.ts'

/** Who the agent is towards its server. */
export interface AgentIdentity {
  readonly spiffeId: SpiffeId
  readonly key: KeyObject
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[]
  /** Unix time. */
  readonly issuedAtSeconds: number
  /** Unix time. */
  readonly expiresAtSeconds: number
  /** The node can prove itself again at any time; otherwise this identity is all it has. */
  readonly canReattest: boolean
}

/**
 * The identity that a chain of certificates (DER, leaf first) gives to the holder of `key`.
 *
 * @throws SyntaxError or AssayError when the chain is not that of an agent.
 */
export function agentIdentity(
  certificates: readonly Uint8Array[],
  of: { readonly key: KeyObject; readonly canReattest: boolean },
): AgentIdentity {
  const [leaf] = certificates
  if (leaf === undefined) throw new SyntaxError('invalid agent SVID: it holds no certificate')
  const parsed = parseCertificate(leaf)
  return {
    ...of,
    spiffeId: spiffeIdOf(parsed),
    certificates: certificates.map((der) => new Uint8Array(der)),
    issuedAtSeconds: parsed.notBeforeSeconds,
    expiresAtSeconds: parsed.notAfterSeconds,
  }
}
