import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import {
  type DeleteRequest,
  type ImportRequest,
  type ListRequest,
  type Record as RecordMessage,
  type SetStateRequest,
  State,
} from '#rpc/gen/assay/server/v1/inventory.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Datastore, EnrolmentState, InventoryRecord } from '../datastore/datastore.ts'
import { asBanned, isBanned } from '../node/banned.ts'
import { newInventoryRecord } from '../node/tpm-inventory.ts'
import { notesOf } from './call-notes.ts'
import { malformed, parsePage } from './messages.ts'

export interface InventoryServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly datastore: Datastore
  readonly clock: Clock
}

/** Most records of one import. */
const maxRecords = 100_000
/** Most records that an audit record names one by one. */
const maxNoted = 1000

/** Fewest characters of a hash that stand for the whole of it. */
const minPrefix = 8

/** `assay.server.v1.Inventory`: which TPMs may join, by their endorsement key. */
export function newInventoryService({
  trustDomain,
  datastore,
  clock,
}: InventoryServiceDependencies) {
  return {
    async list(request: ListRequest) {
      const state =
        request.state === State.STATE_UNSPECIFIED ? undefined : parseState(request.state)
      const { items, nextPageToken } = await datastore.listInventory(state, parsePage(request))
      return { records: items.map(recordMessage), nextPageToken }
    },

    /** What is known of a TPM already, such as the clock of its last quote, stays when its state does. */
    async import({ records: messages, dryRun }: ImportRequest, context: CallContext) {
      if (messages.length > maxRecords) throw malformed('import', `more than ${maxRecords} records`)
      const wanted = new Map(messages.map(parseRecord).map((record) => [record.hash, record]))
      if (wanted.size < messages.length) {
        throw malformed('import', 'an endorsement key hash is there twice')
      }
      const counts = { created: 0, updated: 0, unchanged: 0 }
      const changed: InventoryRecord[] = []
      for (const { hash, state, nodeName } of wanted.values()) {
        const present = await datastore.inventoryRecord(hash)
        if (present?.state === state && present.nodeName === nodeName) {
          counts.unchanged++
          continue
        }
        counts[present === undefined ? 'created' : 'updated']++
        changed.push(
          present === undefined
            ? { ...newInventoryRecord(hash, state, nowSeconds()), nodeName }
            : { ...withState(present, state), nodeName },
        )
      }
      if (!dryRun && changed.length > 0) {
        await datastore.putInventory(changed)
        for (const record of changed) await followState(record)
      }
      notesOf(context).details = {
        ...counts,
        dryRun,
        changed: changed
          .slice(0, maxNoted)
          .map(({ endorsementKeyHash, state }) => `${endorsementKeyHash} ${state}`),
      }
      return counts
    },

    /**
     * A TPM that was never seen can be named by its whole hash. Allowing one, also one that is allowed, starts a
     * new life: what it said of its clock is forgotten.
     */
    async setState(request: SetStateRequest, context: CallContext) {
      const state = parseState(request.state)
      if (state === 'pending') throw malformed('state', 'only a TPM that knocks is pending')
      const hash = await findHash(request.endorsementKeyHash)
      notesOf(context).subject = hash
      const nodeName = parseNodeName(request.nodeName)
      notesOf(context).details = { state, ...(nodeName !== '' && { nodeName }) }
      const record = await datastore.writeInventory(hash, (found) => {
        const present = found ?? newInventoryRecord(hash, state, nowSeconds())
        if (state === 'denied' && present.state === 'allowed') {
          throw new AssayError(
            'failed-precondition',
            `cannot deny ${hash}: it is allowed already; ban it instead`,
            { reason: 'inventory-state' },
          )
        }
        return { ...withState(present, state), nodeName: nodeName || present.nodeName }
      })
      await followState(record)
      return recordMessage(record)
    },

    async delete({ endorsementKeyHash }: DeleteRequest, context: CallContext) {
      const hash = await findHash(endorsementKeyHash)
      notesOf(context).subject = hash
      const record = await datastore.deleteInventory(hash)
      if (record === undefined) throw new AssayError('not-found', `no TPM is known as ${hash}`)
      const agentId = agentIdOf(hash)
      if ((await datastore.node(agentId)) !== undefined) await datastore.deleteNode(agentId)
      return recordMessage(record)
    },
  }

  function agentIdOf(hash: string): SpiffeId {
    return spiffeId(trustDomain, `/spire/agent/tpm/${hash}`)
  }

  async function findHash(text: string): Promise<string> {
    if (isHash(text)) return text
    if (text.length < minPrefix || !/^[0-9a-f]{1,64}$/.test(text)) {
      throw malformed(
        'endorsement key hash',
        `at least ${minPrefix} lower-case hex digits are needed`,
      )
    }
    const { items } = await datastore.listInventory(undefined, { pageSize: 0, pageToken: '' })
    const found = items.filter((record) => record.endorsementKeyHash.startsWith(text))
    const [only, second] = found
    if (only !== undefined && second === undefined) return only.endorsementKeyHash
    throw only === undefined
      ? new AssayError('not-found', `no TPM is known whose hash begins with ${text}`)
      : malformed(
          'endorsement key hash',
          `${found.length} TPMs begin with ${text}; give more digits`,
        )
  }

  /** A node lives no longer than its TPM may, and comes back when its TPM may. */
  async function followState({ endorsementKeyHash, state }: InventoryRecord): Promise<void> {
    const agentId = agentIdOf(endorsementKeyHash)
    const node = await datastore.node(agentId)
    if (node === undefined) return
    if (state === 'allowed') {
      if (isBanned(node)) await datastore.deleteNode(agentId)
    } else if (!isBanned(node)) {
      await datastore.updateNode(agentId, asBanned)
    }
  }

  function nowSeconds(): number {
    return Math.floor(clock.now().epochMilliseconds / 1000)
  }
}

const withState = (record: InventoryRecord, state: EnrolmentState): InventoryRecord => ({
  ...record,
  state,
  clock: state === 'allowed' ? undefined : record.clock,
})

const states: Readonly<Record<number, EnrolmentState>> = {
  [State.ALLOWED]: 'allowed',
  [State.PENDING]: 'pending',
  [State.DENIED]: 'denied',
  [State.BANNED]: 'banned',
}

function parseState(state: number): EnrolmentState {
  const known = states[state]
  if (known === undefined) throw malformed('state', `${state} is not known`)
  return known
}

const isHash = (text: string): boolean => /^[0-9a-f]{64}$/.test(text)

function parseRecord(message: RecordMessage) {
  const { endorsementKeyHash: hash, state } = message
  if (!isHash(hash)) {
    throw malformed(
      'endorsement key hash',
      `${JSON.stringify(hash.slice(0, 80))} is not 64 lower-case hex digits`,
    )
  }
  return {
    hash,
    state: state === State.STATE_UNSPECIFIED ? ('allowed' as const) : parseState(state),
    nodeName: parseNodeName(message.nodeName),
  }
}

function parseNodeName(name: string): string {
  if (name.length > 255 || /\p{Cc}/u.test(name)) {
    throw malformed('node name', 'it is longer than 255 characters or has control characters')
  }
  return name
}

function recordMessage(record: InventoryRecord): RecordMessage {
  const state = Object.entries(states).find(([, name]) => name === record.state)?.[0]
  return {
    endorsementKeyHash: record.endorsementKeyHash,
    state: Number(state ?? 0) as State,
    nodeName: record.nodeName,
    lastAddress: record.lastAddress,
    firstSeen: record.firstSeenSeconds,
    lastSeen: record.lastSeenSeconds,
    description: record.description,
  }
}
