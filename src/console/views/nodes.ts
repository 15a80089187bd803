import type { Connection } from '#rpc/client.ts'
import {
  ActivityDefinition,
  type Node,
  type NodesUpdate,
} from '#rpc/gen/assay/server/v1/activity.ts'
import {
  InventoryDefinition,
  type Record as InventoryRecord,
  State,
} from '#rpc/gen/assay/server/v1/inventory.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { parseSpiffeId, pathOf, trustDomainOf } from '#spiffe/spiffe-id.ts'

/** A node on the map: one that has attested, or a TPM of the inventory that has not. */
export interface NodeView {
  /** Its agent ID; of a TPM without one, the hash of its endorsement key. */
  readonly id: string
  /** As operators call it; empty when they have not said. */
  readonly name: string
  /** Of {@link Node.state}, or pending, denied, banned, expected: approved, and has not attested yet. */
  readonly state: string
  readonly type: string
  readonly version: string
  readonly address: string
  /** Unix times; zero: never. */
  readonly attestedAt: number
  readonly expiresAt: number
  readonly svids: number
  /** What a TPM says it is. */
  readonly description: string
}

/** The hash of the endorsement key is the last part of the agent ID of a node with a TPM. */
const tpmOf = ({ attestationType, agentId }: Node): string | undefined =>
  attestationType === 'tpm' ? agentId.slice(agentId.lastIndexOf('/') + 1) : undefined

const stateNames: Readonly<Partial<Record<State, string>>> = {
  [State.ALLOWED]: 'expected',
  [State.PENDING]: 'pending',
  [State.DENIED]: 'denied',
  [State.BANNED]: 'banned',
}

/** Puts together what the server's nodes are and what its inventory says. */
export class NodeList {
  readonly #nodes = new Map<string, Node>()
  #records: ReadonlyMap<string, InventoryRecord> = new Map()
  #views: ReadonlyMap<string, NodeView> = new Map()

  /** A node has a TPM of which the inventory, as it was read last, does not know. */
  get lacksRecords(): boolean {
    for (const node of this.#nodes.values()) {
      const hash = tpmOf(node)
      if (hash !== undefined && !this.#records.has(hash)) return true
    }
    return false
  }

  apply({ complete, nodes, removed }: NodesUpdate): void {
    if (complete) this.#nodes.clear()
    for (const node of nodes) this.#nodes.set(node.agentId, node)
    for (const id of removed) this.#nodes.delete(id)
  }

  /** Replaces what the inventory says. */
  setRecords(records: Iterable<InventoryRecord>): void {
    this.#records = new Map([...records].map((record) => [record.endorsementKeyHash, record]))
  }

  /**
   * Replaces what it says of TPMs in one of `states`.
   *
   * @returns whether every one that was in them still is: of the others only a whole reading tells what they are now.
   */
  updateRecords(records: readonly InventoryRecord[], states: ReadonlySet<State>): boolean {
    const known = [...this.#records.values()]
    const given = new Set(records.map(({ endorsementKeyHash }) => endorsementKeyHash))
    const isWhole = known.every(
      ({ state, endorsementKeyHash }) => !states.has(state) || given.has(endorsementKeyHash),
    )
    if (isWhole) this.setRecords([...known.filter(({ state }) => !states.has(state)), ...records])
    return isWhole
  }

  /** Every node by its id. One that has not changed is the same object as before. */
  views(): ReadonlyMap<string, NodeView> {
    const views = new Map<string, NodeView>()
    const attested = new Set<string>()
    const add = (view: NodeView): void => {
      const before = this.#views.get(view.id)
      views.set(view.id, before !== undefined && isSame(before, view) ? before : view)
    }
    for (const node of this.#nodes.values()) {
      const hash = tpmOf(node)
      if (hash !== undefined) attested.add(hash)
      add(attestedView(node, hash === undefined ? undefined : this.#records.get(hash)))
    }
    for (const record of this.#records.values()) {
      if (!attested.has(record.endorsementKeyHash)) add(unattestedView(record))
    }
    this.#views = views
    return views
  }
}

const attestedView = (node: Node, record: InventoryRecord | undefined): NodeView => ({
  id: node.agentId,
  name: record?.nodeName ?? '',
  state: node.state,
  type: node.attestationType,
  version: node.agentVersion,
  address: node.address === '' ? (record?.lastAddress ?? '') : node.address,
  attestedAt: node.attestedAt,
  expiresAt: node.expiresAt,
  svids: node.svids,
  description: record?.description ?? '',
})

const unattestedView = (record: InventoryRecord): NodeView => ({
  id: record.endorsementKeyHash,
  name: record.nodeName,
  state: stateNames[record.state] ?? 'expected',
  type: 'tpm',
  version: '',
  address: record.lastAddress,
  attestedAt: 0,
  expiresAt: 0,
  svids: 0,
  description: record.description,
})

const isSame = (a: NodeView, b: NodeView): boolean =>
  (Object.keys(a) as (keyof NodeView)[]).every((key) => a[key] === b[key])

/** Tells of every node, until `signal` aborts or the server goes. */
export const watchNodes = (
  connection: Connection,
  signal: AbortSignal,
): AsyncIterable<NodesUpdate> => connection.client(ActivityDefinition).watchNodes({}, { signal })

/** Records of the inventory in one state, or all of them. */
export async function listInventory(
  connection: Connection,
  state: State,
  signal: AbortSignal,
): Promise<readonly InventoryRecord[]> {
  const client = connection.client(InventoryDefinition)
  const records: InventoryRecord[] = []
  let pageToken = ''
  do {
    const answer = await client.list({ state, pageSize: 1000, pageToken }, { signal })
    records.push(...answer.records)
    pageToken = answer.nextPageToken
  } while (pageToken !== '')
  return records
}

/** What is worth a call only when somebody looks at one node. @throws SyntaxError when `id` is no SPIFFE ID. */
export async function nodeDetails(connection: Connection, id: string, signal: AbortSignal) {
  const agentId = parseSpiffeId(id)
  const agent = await connection
    .client(AgentDefinition)
    .getAgent({ id: { trustDomain: trustDomainOf(agentId), path: pathOf(agentId) } }, { signal })
  return {
    id,
    serialNumber: agent.x509svidSerialNumber,
    canReattest: agent.canReattest,
    selectors: agent.selectors.map(({ type, value }) => `${type}:${value}`),
  }
}
