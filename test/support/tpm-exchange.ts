import { createHash } from 'node:crypto'
import type {
  NodeAttestor as AgentAttestor,
  AttestationExchange as AgentExchange,
} from '#agent/plugin/node-attestor/node-attestor.ts'
import { AssayError } from '#base/errors.ts'
import type {
  AttestedNode,
  NodeAttestor as ServerAttestor,
  AttestationExchange as ServerExchange,
} from '#server/plugin/node-attestor/node-attestor.ts'
import type {
  TpmInventory,
  TpmInventoryRecord,
} from '#server/plugin/node-attestor/tpm-inventory.ts'

/** The inventory of one server, in memory. */
export class MemoryTpmInventory implements TpmInventory {
  readonly records = new Map<string, TpmInventoryRecord>()
  readonly knocks: { hash: string; address: string; description: string }[] = []

  /** As `assay inventory approve` does: what was known of its clock is forgotten. */
  approve(hash: string, nodeName = ''): void {
    this.records.set(hash, { state: 'allowed', nodeName, clock: undefined })
  }

  set(hash: string, change: Partial<TpmInventoryRecord>): void {
    const present = this.records.get(hash) ?? { state: 'allowed', nodeName: '', clock: undefined }
    this.records.set(hash, { ...present, ...change })
  }

  async record(hash: string): Promise<TpmInventoryRecord | undefined> {
    return this.records.get(hash)
  }

  async knock(hash: string, address: string, description: string): Promise<void> {
    this.knocks.push({ hash, address, description })
    this.set(hash, { state: 'pending' })
  }

  async recordClock(
    hash: string,
    _address: string,
    advance: (present: TpmInventoryRecord | undefined) => TpmInventoryRecord['clock'],
  ): Promise<void> {
    this.set(hash, { clock: advance(this.records.get(hash)) })
  }
}

/** A connection between an agent and a server: both ends export the same keying material. */
export interface TestConnection {
  readonly csrPublicKey: Uint8Array
  exporter(label: string, length: number): Uint8Array
}

/** A connection with a certificate request on it; another `seed` is another connection and request. */
export function testConnection(seed = 'connection'): TestConnection {
  const material = (label: string): Uint8Array =>
    new Uint8Array(createHash('sha256').update(`${seed}/${label}`).digest())
  return {
    csrPublicKey: material('certificate request'),
    exporter: (label, length) => material(label).subarray(0, length),
  }
}

/** The server's end of an exchange: `respond` is the agent. */
export function serverExchange(
  payload: Uint8Array,
  respond: (challenge: Uint8Array) => Promise<Uint8Array>,
  connection = testConnection(),
): ServerExchange {
  return {
    payload,
    csr: new Uint8Array(0),
    csrPublicKey: connection.csrPublicKey,
    peerAddress: '192.0.2.7',
    tlsExporter: connection.exporter,
    challenge: respond,
    signal: new AbortController().signal,
  }
}

/** The agent's end. */
export function agentExchange(
  connection = testConnection(),
  signal = new AbortController().signal,
): AgentExchange {
  return { csrPublicKey: connection.csrPublicKey, tlsExporter: connection.exporter, signal }
}

/** One attestation with both halves. */
export async function attest(
  agent: AgentAttestor,
  server: ServerAttestor,
  connection = testConnection(),
): Promise<AttestedNode> {
  await using attestation = await agent.attest(agentExchange(connection))
  return await server.attest(
    serverExchange(attestation.payload, (challenge) => attestation.respond(challenge), connection),
  )
}

/** The reason an attempt is refused for: `accepted` when it is not, `untyped: …` when the error has none. */
export async function outcomeOf(attempt: () => Promise<unknown>): Promise<string> {
  try {
    await attempt()
    return 'accepted'
  } catch (error) {
    if (error instanceof AssayError && error.reason !== undefined) return error.reason
    return `untyped: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
  }
}
