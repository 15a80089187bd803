import type { Clock } from '#base/clock.ts'
import type { AssayError } from '#base/errors.ts'
import type { CallContext, TlsPeer, UnixPeer } from '#rpc/call.ts'
import { pathOf, type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Administrators } from '../administrators/administrators.ts'
import { calls } from '../administrators/calls.ts'
import type { Rights } from '../administrators/rights.ts'
import type { AttestedNodeRecord, Datastore } from '../datastore/datastore.ts'
import { type Caller, setCaller, setUser } from './caller.ts'
import { denied } from './denied.ts'
import { policy } from './policy.ts'

/** Why an agent may not call, by the names of `spire.api.types.PermissionDeniedDetails`. */
export type AgentRefusal =
  | 'agent-expired'
  | 'agent-not-attested'
  | 'agent-not-active'
  | 'agent-banned'

/** What authorization asks of the rest of the server. Both are answered from memory. */
export interface Standing {
  /** The node of an agent ID, when it has attested. */
  node(agentId: SpiffeId): AttestedNodeRecord | undefined
  /** Whether an entry of this ID has the flag. */
  isAdmin(id: SpiffeId): boolean
  isDownstream(id: SpiffeId): boolean
}

export interface AuthorizerDependencies {
  readonly trustDomain: TrustDomain
  readonly administrators: Administrators
  readonly standing: Standing
  readonly datastore: Pick<Datastore, 'node' | 'updateNode'>
  readonly clock: Clock
}

/** Decides who may call a method. A method the policy does not name is denied to everybody. */
export class Authorizer {
  readonly #dependencies: AuthorizerDependencies

  constructor(dependencies: AuthorizerDependencies) {
    this.#dependencies = dependencies
  }

  /**
   * Tries the classes that may call the method in SPIRE's order: any, local, admin, downstream, agent. An
   * agent that shows its renewed SVID for the first time has it recorded as the one in use.
   *
   * @throws AssayError `permission-denied`, whose reason is an {@link AgentRefusal} when only an agent's
   *   standing was missing, and `svid-expired` when an SVID expired while its connection stayed open.
   */
  async authorize(context: CallContext): Promise<Caller> {
    return setCaller(context, await this.#authorize(context))
  }

  async #authorize(context: CallContext): Promise<Caller> {
    const { method, peer, signal } = context
    // Nobody waits for the answer, and the connection may be gone that said who calls.
    signal.throwIfAborted()
    const allowed = policy.get(method) ?? []
    if (peer.kind === 'unix') return this.#local(context, peer)
    if (allowed.includes('any')) return { class: 'any' }
    const id = peer.spiffeId
    if (id === undefined) throw denied(method)
    const { administrators, standing, trustDomain, clock } = this.#dependencies
    const ours = trustDomainOf(id) === trustDomain
    if (peer.expiresAtSeconds <= clock.now().epochMilliseconds / 1000) {
      const agents = ours && isAgentPath(pathOf(id)) && allowed.includes('agent')
      throw denied(method, { reason: agents ? 'agent-expired' : 'svid-expired' })
    }
    let lacking: AssayError | undefined
    if (allowed.includes('admin')) {
      const rights = administrators.ofId(id, () => ours && standing.isAdmin(id))
      lacking = rights && whyNot(method, rights)
      if (rights !== undefined && lacking === undefined) {
        return { class: 'admin', via: administrators.ids.has(id) ? 'config' : 'entries', rights }
      }
    }
    if (allowed.includes('downstream') && ours && standing.isDownstream(id)) {
      return { class: 'downstream', via: 'entries' }
    }
    if (!allowed.includes('agent') || !ours) throw lacking ?? denied(method)
    const verdict = await this.#agent(id, peer)
    if (typeof verdict === 'string') throw lacking ?? denied(method, { reason: verdict })
    return { class: 'agent', via: 'datastore', node: verdict }
  }

  async #local(context: CallContext, peer: UnixPeer): Promise<Caller> {
    const { method, signal } = context
    const { user, rights } = await this.#dependencies.administrators.ofProcess(peer)
    setUser(context, user)
    signal.throwIfAborted()
    const allowed = policy.get(method) ?? []
    if (allowed.includes('any')) return { class: 'any' }
    if (!allowed.includes('local')) throw denied(method)
    const lacking = calls.get(method)?.set === 'everybody' ? undefined : whyNot(method, rights)
    if (lacking !== undefined) throw lacking
    return { class: 'local', via: 'transport', rights }
  }

  async #agent(id: SpiffeId, peer: TlsPeer): Promise<AttestedNodeRecord | AgentRefusal> {
    const { standing, datastore } = this.#dependencies
    const known = agentStanding(standing.node(id), peer.serialNumber)
    if (typeof known === 'object' && known.serialNumber === peer.serialNumber) return known
    if (!isAgentPath(pathOf(id))) return 'agent-not-attested'
    // What is held in memory may lag behind another server's write, so a refusal is looked up once more.
    const stored = agentStanding(await datastore.node(id), peer.serialNumber)
    if (typeof stored === 'string' || stored.serialNumber === peer.serialNumber) return stored
    const updated = await datastore.updateNode(id, (node) =>
      node.newSerialNumber === peer.serialNumber ? withRenewedSvidInUse(node) : node,
    )
    return agentStanding(updated, peer.serialNumber)
  }
}

/**
 * Whether a node may act with the SVID of this serial (decimal): the one in use, or the renewed one that has
 * not been used yet.
 */
export function agentStanding(
  node: AttestedNodeRecord | undefined,
  serialNumber: string,
): AttestedNodeRecord | AgentRefusal {
  if (node === undefined) return 'agent-not-attested'
  if (node.serialNumber === '') return 'agent-banned'
  if (serialNumber === '') return 'agent-not-active'
  return node.serialNumber === serialNumber || node.newSerialNumber === serialNumber
    ? node
    : 'agent-not-active'
}

/** The agent that calls; only for methods whose policy is that agents call them. */
export function agentOf({ peer, method }: CallContext): SpiffeId {
  const id = peer.kind === 'tls' ? peer.spiffeId : undefined
  if (id === undefined) throw denied(method)
  return id
}

/** Whether a path is one that only attestation gives: below `/spire/agent/`. */
export const isAgentPath = (path: string): boolean => path.startsWith('/spire/agent/')

const withRenewedSvidInUse = (node: AttestedNodeRecord): AttestedNodeRecord => ({
  ...node,
  serialNumber: node.newSerialNumber,
  expiresAtSeconds: node.newExpiresAtSeconds,
  newSerialNumber: '',
  newExpiresAtSeconds: 0,
})

/** Why these rights are not enough to call a method, with the remedy; undefined when they are. */
function whyNot(method: string, rights: Rights): AssayError | undefined {
  if (rights.permission(method) !== undefined) return undefined
  const { holder } = rights
  if (rights.areNone) {
    return denied(method, {
      reason: 'not-administrator',
      why: `${holder} is no administrator here; whoever may change server.yaml can add a row to administrators`,
    })
  }
  if (rights.isTooNarrowFor(method)) {
    return denied(method, {
      reason: 'cannot-be-narrowed',
      why: `${holder} is kept to some SPIFFE IDs, and this call is not about single ones; a row of administrators without spiffe_id_prefixes allows it`,
    })
  }
  const traits = calls.get(method)
  const sets =
    traits === undefined ? 'all calls' : `'${traits.set}'${traits.reads ? " nor 'read'" : ''}`
  return denied(method, {
    reason: 'right-missing',
    why: `${holder} has no right to ${sets}; whoever may change server.yaml can add it to calls in administrators`,
  })
}
