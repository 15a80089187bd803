import { AssayError } from '#base/errors.ts'
import { type Random, randomUuid } from '#base/random.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  BanAgentRequest,
  CountAgentsRequest,
  CreateJoinTokenRequest,
  DeleteAgentRequest,
  GetAgentRequest,
  ListAgentsRequest,
  PostStatusRequest,
  RenewAgentRequest,
} from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { SPIFFEID } from '#rpc/gen/spire/api/types/spiffeid.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { selector, selectorSet } from '#spiffe/selector.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import { isCovered } from '../administrators/rights.ts'
import type { AttestedNodeRecord, Datastore, NodeFilter } from '../datastore/datastore.ts'
import { checkEntry } from '../entry/entry-fields.ts'
import { asBanned, isBanned } from '../node/banned.ts'
import { newInventoryRecord } from '../node/tpm-inventory.ts'
import { agentMessage, parseNodeFilter, x509SvidMessage } from './agent-messages.ts'
import { type AttestAgentDependencies, attestAgent, readCsr } from './attest-agent.ts'
import { agentOf } from './authorize.ts'
import { notesOf } from './call-notes.ts'
import { prefixesOf, rightsOf } from './caller.ts'
import { denied } from './denied.ts'
import { parseEntryMessage } from './entry-messages.ts'
import type { Guard } from './guard.ts'
import {
  idMessage,
  malformed,
  parseAgentIdMessage,
  parsePage,
  selectorMessage,
} from './messages.ts'

export interface AgentServiceDependencies extends AttestAgentDependencies {
  readonly datastore: Datastore
  readonly guard: Guard
  readonly random: Random
}

/** `spire.api.server.agent.v1.Agent`: nodes attest, renew, and are administered. */
export function newAgentService(dependencies: AgentServiceDependencies) {
  const { datastore, guard, trustDomain, clock, random, authority, holdings, log } = dependencies
  const agentId = (id: Parameters<typeof parseAgentIdMessage>[0]): SpiffeId =>
    parseAgentIdMessage(id, trustDomain)
  const nowSeconds = (): number => Math.floor(clock.now().epochMilliseconds / 1000)

  return {
    attestAgent: (
      requests: Parameters<typeof attestAgent>[1],
      context: CallContext,
    ): ReturnType<typeof attestAgent> => attestAgent(dependencies, requests, context),

    /**
     * Hands out an SVID for the request's key, which counts once it is first used. A node that can prove
     * itself again has to: a stolen credential must die at its end.
     */
    async renewAgent({ params }: RenewAgentRequest, context: CallContext) {
      const id = agentOf(context)
      const node = await datastore.node(id)
      if (node === undefined) throw notFound(id)
      if (node.canReattest) {
        throw new AssayError('permission-denied', 'agent must reattest instead of renew', {
          reason: 'agent-must-reattest',
        })
      }
      if (params === undefined) throw malformed('request', 'params cannot be nil')
      if (params.csr.length === 0) throw malformed('request', 'missing CSR')
      const csr = readCsr(params.csr)
      const svid = await authority.issueX509Svid({
        spiffeId: id,
        publicKey: csr.publicKey,
        ttlSeconds: 0,
      })
      await datastore.updateNode(id, (present) => {
        // A ban that came in the meantime stays a ban.
        if (isBanned(present)) throw banned()
        return {
          ...present,
          newSerialNumber: svid.serialNumber,
          newExpiresAtSeconds: svid.expiresAtSeconds,
          attestedAtSeconds: nowSeconds(),
        }
      })
      holdings.handedOut(id, { ...svid, entryId: '' })
      notesOf(context).details = {
        serialNumber: svid.serialNumber,
        expiresAt: svid.expiresAtSeconds,
      }
      return { svid: x509SvidMessage(svid) }
    },

    async postStatus({ agentVersion }: PostStatusRequest, context: CallContext) {
      if (agentVersion.length > 255) {
        throw malformed('agent version', 'it is longer than 255 characters')
      }
      await recordAgentVersion(datastore, agentOf(context), agentVersion)
      return {}
    },

    async countAgents({ filter }: CountAgentsRequest, context: CallContext) {
      return { count: await datastore.countNodes(shown(parseNodeFilter(filter), context)) }
    },

    async listAgents(request: ListAgentsRequest, context: CallContext) {
      const filter = shown(parseNodeFilter(request.filter), context)
      const { items, nextPageToken } = await datastore.listNodes(filter, parsePage(request))
      return {
        agents: items.map((node) => agentMessage(node, request.outputMask)),
        nextPageToken,
      }
    },

    async getAgent({ id, outputMask }: GetAgentRequest, context: CallContext) {
      const wanted = agentId(id)
      guard.checkId(context, wanted)
      const node = await datastore.node(wanted)
      if (node === undefined) throw notFound(wanted)
      return agentMessage(node, outputMask)
    },

    async deleteAgent({ id }: DeleteAgentRequest, context: CallContext) {
      const wanted = agentId(id)
      notesOf(context).subject = wanted
      guard.checkId(context, wanted)
      const present = await datastore.node(wanted)
      const mayUnban = rightsOf(context).permission(setInventoryState) !== undefined
      if (present !== undefined && isBanned(present) && !mayUnban) throw cannotUnban(context)
      const node = await datastore.deleteNode(wanted)
      // One that was banned in the meantime leaves its TPM so.
      if (isBanned(node) && mayUnban) await unbanTpm(datastore, node)
      if (node.attestationType === 'join_token') await deleteAlias(datastore, node.agentId)
      log.info({ spiffeId: node.agentId }, 'agent deleted')
      return {}
    },

    /**
     * The node stays, without a serial that could be in use, so that it cannot attest again either; and its TPM is
     * banned with it, because the node's record is not all that a TPM is let in by.
     */
    async banAgent({ id }: BanAgentRequest, context: CallContext) {
      const wanted = agentId(id)
      notesOf(context).subject = wanted
      guard.checkId(context, wanted)
      if ((await datastore.node(wanted)) === undefined) throw notFound(wanted)
      const node = await datastore.updateNode(wanted, asBanned)
      await banTpm(datastore, node, nowSeconds())
      log.info({ spiffeId: node.agentId }, 'agent banned')
      return {}
    },

    async createJoinToken(request: CreateJoinTokenRequest, context: CallContext) {
      if (request.ttl < 1) throw malformed('request', 'ttl is required, you must provide one')
      const value = request.token === '' ? randomUuid(random) : request.token
      const joinTokenId = readJoinTokenId(value)
      const expiresAtSeconds = nowSeconds() + request.ttl
      const alias = request.agentId && aliasEntry(joinTokenId, request.agentId)
      checkToken(context, request.token, alias)
      await datastore.createJoinToken({ value, expiresAtSeconds })
      if (alias) await datastore.createEntry(alias)
      // Neither the token nor its node's name, which has it in it.
      notesOf(context).details = {
        expiresAt: expiresAtSeconds,
        ...(alias && { alias: alias.spiffeId, entry: alias.id }),
      }
      return { value, expiresAt: expiresAtSeconds }
    },
  }

  /**
   * A token's value is its node's name, below which there may be entries already, so only who has all rights chooses
   * one. An alias is an entry like any other.
   */
  function checkToken(
    context: CallContext,
    value: string,
    alias: RegistrationEntry | undefined,
  ): void {
    const rights = rightsOf(context)
    if (value !== '')
      guard.checkAll(context, 'a token of a chosen value gives its node a known name')
    if (alias === undefined) {
      if (prefixesOf(context) === undefined) return
      throw denied(context.method, {
        reason: 'outside-prefixes',
        why: `${rights.holder} is kept to some SPIFFE IDs, so the token needs an alias of those (agent_id)`,
      })
    }
    guard.checkWritten(context, alias)
    const entries = rights.permission(createEntry)
    if (entries === undefined || !isCovered(alias.spiffeId, entries.prefixes)) {
      throw denied(context.method, {
        reason: 'right-missing',
        why: `an alias is an entry, and ${rights.holder} has no right to 'entries' of ${alias.spiffeId}`,
      })
    }
  }

  /** Gives the node of a join token a name of the operator's choice, below which entries can be made. */
  function aliasEntry(joinTokenId: SpiffeId, alias: SPIFFEID): RegistrationEntry {
    const entry = parseEntryMessage(
      Entry.create({
        spiffeId: alias,
        parentId: idMessage(joinTokenId),
        selectors: [selectorMessage(aliasSelector(joinTokenId))],
      }),
      { id: randomUuid(random), revisionNumber: 0, createdAtSeconds: nowSeconds() },
    )
    checkEntry(trustDomain, entry)
    return entry
  }

  function readJoinTokenId(value: string): SpiffeId {
    if (!/^[A-Za-z0-9._-]{1,255}$/.test(value)) {
      throw malformed('token', '1 to 255 letters, digits, ".", "-" and "_" are allowed')
    }
    try {
      return spiffeId(trustDomain, `/spire/agent/join_token/${value}`)
    } catch (error) {
      throw malformed('token', error)
    }
  }
}

const createEntry = '/spire.api.server.entry.v1.Entry/BatchCreateEntry'
const setInventoryState = '/assay.server.v1.Inventory/SetState'

/** Evicting a banned node lifts its ban, and that of its TPM, which is the inventory's. */
const cannotUnban = (context: CallContext): AssayError =>
  denied(context.method, {
    reason: 'right-missing',
    why: `the agent is banned, and evicting it lets it in again; ${rightsOf(context).holder} has no right to 'inventory'`,
  })

/** What an administrator who is kept to some SPIFFE IDs may see of it. */
const shown = (filter: NodeFilter, context: CallContext): NodeFilter => {
  const agentIdPrefixes = prefixesOf(context)
  return agentIdPrefixes === undefined ? filter : { ...filter, agentIdPrefixes }
}

/** The endorsement key hash of a node with a TPM is the last part of its name. */
const tpmOf = ({ agentId, attestationType }: AttestedNodeRecord): string | undefined =>
  attestationType === 'tpm' ? agentId.slice(agentId.lastIndexOf('/') + 1) : undefined

async function banTpm(
  datastore: Datastore,
  node: AttestedNodeRecord,
  nowSeconds: number,
): Promise<void> {
  const hash = tpmOf(node)
  if (hash === undefined) return
  await datastore.writeInventory(hash, (present) => ({
    ...(present ?? newInventoryRecord(hash, 'banned', nowSeconds)),
    state: 'banned',
  }))
}

/** Evicting a node lifts its ban, so also that of its TPM. One that was denied stays so. */
async function unbanTpm(datastore: Datastore, node: AttestedNodeRecord): Promise<void> {
  const hash = tpmOf(node)
  if (hash === undefined || (await datastore.inventoryRecord(hash)) === undefined) return
  await datastore.updateInventory(hash, (present) =>
    present.state === 'banned' ? { ...present, state: 'allowed', clock: undefined } : present,
  )
}

/** Notes the version an agent reports, when it is another one. */
export async function recordAgentVersion(
  datastore: Pick<Datastore, 'node' | 'updateNode'>,
  id: SpiffeId,
  agentVersion: string,
): Promise<void> {
  const node = await datastore.node(id)
  if (node === undefined) throw notFound(id)
  if (node.agentVersion === agentVersion) return
  await datastore.updateNode(id, (present) => ({ ...present, agentVersion }))
}

const aliasSelector = (id: SpiffeId) => selector('spiffe_id', id)

/** The entry that gave a join token's node its alias has no purpose without the node. */
async function deleteAlias(datastore: Datastore, agentId: SpiffeId): Promise<void> {
  const { items } = await datastore.listEntries(
    {
      parentId: agentId,
      selectors: { match: 'exact', selectors: selectorSet([aliasSelector(agentId)]) },
    },
    { pageSize: 0, pageToken: '' },
  )
  for (const entry of items) await datastore.deleteEntry(entry.id)
}

const notFound = (id: SpiffeId): AssayError =>
  new AssayError('not-found', `agent not found: ${id}`, { reason: 'agent-not-found' })

const banned = (): AssayError =>
  new AssayError('permission-denied', 'agent is banned', { reason: 'agent-banned' })
