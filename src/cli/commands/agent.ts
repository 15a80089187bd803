import { AssayError } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import {
  type AuthorityUse,
  DiagnosisDefinition,
  type Status,
} from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { ActivityDefinition, type Node } from '#rpc/gen/assay/server/v1/activity.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import type { Agent } from '#rpc/gen/spire/api/types/agent.ts'
import {
  all,
  type Command,
  type CommandContext,
  epochSeconds,
  nowSeconds,
  type Option,
  optional,
  required,
} from '../command.ts'
import {
  agentAdministrationOptions,
  connectAgentAdministration,
  connectServer,
  serverOptions,
} from '../daemons.ts'
import { count, fields, table, timeLeftText, timeText } from '../print.ts'
import {
  agentPqText,
  agentRecord,
  agentStatusRecord,
  clockText,
  idText,
  pages,
  pqTexts,
  wireId,
  wireSelectors,
} from '../wire.ts'

const filterOptions: readonly Option[] = [
  {
    name: 'attestation-type',
    value: 'TYPE',
    summary: 'only nodes admitted this way: tpm, join_token',
  },
  {
    name: 'selector',
    value: 'TYPE:VALUE',
    multiple: true,
    summary: 'only nodes with all of these selectors',
  },
  { name: 'banned', summary: 'only banned nodes; =false: only others' },
  {
    name: 'expires-before',
    value: 'TIME',
    summary: 'only nodes whose SVID ends before this RFC 3339 time',
  },
]

/** SPIRE's spelling of a time in this one filter: `2006-01-02 15:04:05 -0700 -07`. */
function spireTime(epochSeconds: number): string {
  if (epochSeconds === 0) return ''
  return `${timeText(epochSeconds).replace('T', ' ').replace('Z', '')} +0000 +00`
}

function filterOf(context: CommandContext) {
  const selectors = all(context, 'selector')
  return {
    byAttestationType: optional(context, 'attestation-type') ?? '',
    bySelectorMatch:
      selectors.length === 0
        ? undefined
        : { selectors: wireSelectors(selectors), match: 2 as const },
    byBanned: context.switches.get('banned'),
    byCanReattest: undefined,
    byExpiresBefore: spireTime(epochSeconds(context, 'expires-before')),
  }
}

/** Without what the server knows of it, only that it may be there. */
const stateOf = ({ banned }: Agent, node: Node | undefined): string =>
  banned ? 'banned' : (stateWords[node?.state ?? ''] ?? node?.state ?? 'admitted')

const stateWords: Readonly<Record<string, string>> = {
  lacking: 'live, without the newest bundle',
}

/** What the server has seen of the connections of nodes, by agent id; empty when it does not tell this caller. */
async function connectionsOf(
  connection: Connection,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Node>> {
  try {
    const updates = connection.client(ActivityDefinition).watchNodes({}, { signal })
    for await (const { nodes } of updates) return new Map(nodes.map((node) => [node.agentId, node]))
  } catch (error) {
    const isToBeExpected =
      error instanceof AssayError && ['permission-denied', 'unimplemented'].includes(error.code)
    if (!isToBeExpected) throw error
  }
  return new Map()
}

/** Of a node's last connection; empty when there was none since the server started. */
const pqText = ({ keyAgreement, pq }: Pick<Node, 'keyAgreement' | 'pq'>): string =>
  [keyAgreement, pqTexts[pq] ?? pq].filter((text) => text !== '').join(', SVID ')

const pqWords: Readonly<Record<string, string>> = { verified: 'yes', absent: 'no' }

const nodeRecord = (node: Node | undefined) =>
  node !== undefined && {
    state: node.state,
    key_agreement: node.keyAgreement || undefined,
    pq: node.pq || undefined,
  }

function printAgents(
  context: CommandContext,
  agents: readonly Agent[],
  nodes: ReadonlyMap<string, Node>,
): void {
  const now = nowSeconds(context)
  const rows = agents.map((agent) => [
    idText(agent.id),
    stateOf(agent, nodes.get(idText(agent.id))),
    agent.banned ? '' : timeLeftText(agent.x509svidExpiresAt, now),
    agent.agentVersion,
    pqWords[nodes.get(idText(agent.id))?.pq ?? ''] ?? '',
  ])
  if (rows.length > 0)
    for (const line of table(['agent', 'state', 'svid expires', 'version', 'pq'], rows))
      context.print(line)
  context.note(count(agents.length, 'agent'))
}

function printAgent(context: CommandContext, agent: Agent, node: Node | undefined): void {
  const selectors = agent.selectors.map(
    ({ type, value }) => ['Selector', `${type}:${value}`] as const,
  )
  for (const line of fields([
    ['Agent', idText(agent.id)],
    ['Attested by', agent.attestationType],
    ['State', stateOf(agent, node)],
    ['SVID serial', agent.x509svidSerialNumber],
    [
      'SVID expires',
      agent.banned ? '' : timeLeftText(agent.x509svidExpiresAt, nowSeconds(context)),
    ],
    ['Can re-attest', agent.canReattest ? 'yes' : 'no'],
    ['Version', agent.agentVersion],
    ['Post-quantum', node === undefined ? '' : pqText(node)],
    ...selectors,
  ])) {
    context.print(line)
  }
}

const list: Command = {
  name: 'agent list',
  summary: 'the nodes that have attested',
  options: [...filterOptions, ...serverOptions],
  details: `
A node is 'live' while it is connected or was heard of in the last minute, 'away' with a valid SVID
otherwise, and only 'admitted' where the caller may not watch nodes. The column pq says whether the SVID
that a node shows was verified with both signatures; it is empty for a node that has not called since
the server started, and where the caller may not watch nodes.`,
  async run(context) {
    using connection = await connectServer(context)
    const client = connection.client(AgentDefinition)
    const filter = filterOf(context)
    const agents: Agent[] = []
    for await (const agent of pages(async (pageToken) => {
      const request = { filter, pageSize: 500, pageToken }
      const answer = await client.listAgents(request, { signal: context.signal })
      return { items: answer.agents, nextPageToken: answer.nextPageToken }
    })) {
      agents.push(agent)
    }
    const nodes = await connectionsOf(connection, context.signal)
    if (context.json) {
      const records = agents.map((agent) => ({
        ...agentRecord(agent),
        ...nodeRecord(nodes.get(idText(agent.id))),
      }))
      return context.print(JSON.stringify(records))
    }
    printAgents(context, agents, nodes)
  },
}

const spiffeIdOption: Option = {
  name: 'spiffe-id',
  value: 'ID',
  required: true,
  summary: 'which agent',
}

const show: Command = {
  name: 'agent show',
  summary: 'one node, with what was attested about it',
  options: [spiffeIdOption, ...serverOptions],
  async run(context) {
    using connection = await connectServer(context)
    const id = wireId(required(context, 'spiffe-id'))
    const agent = await connection
      .client(AgentDefinition)
      .getAgent({ id }, { signal: context.signal })
    const node = (await connectionsOf(connection, context.signal)).get(idText(agent.id))
    if (context.json) context.print(JSON.stringify({ ...agentRecord(agent), ...nodeRecord(node) }))
    else printAgent(context, agent, node)
  },
}

const ban: Command = {
  name: 'agent ban',
  summary: 'stop a node now, and refuse it until it is evicted',
  options: [spiffeIdOption, ...serverOptions],
  details: `
Its connections are cut, its agent drops what it holds, and it cannot attest again; a TPM is banned in the inventory
with its node. 'assay agent evict' lifts both.`,
  async run(context) {
    using connection = await connectServer(context)
    const id = required(context, 'spiffe-id')
    await connection
      .client(AgentDefinition)
      .banAgent({ id: wireId(id) }, { signal: context.signal })
    context.print(context.json ? JSON.stringify({ banned: id }) : `banned ${id}`)
  },
}

const evict: Command = {
  name: 'agent evict',
  summary: 'forget a node; it may attest again',
  options: [spiffeIdOption, ...serverOptions],
  async run(context) {
    using connection = await connectServer(context)
    const id = required(context, 'spiffe-id')
    await connection
      .client(AgentDefinition)
      .deleteAgent({ id: wireId(id) }, { signal: context.signal })
    context.print(context.json ? JSON.stringify({ evicted: id }) : `evicted ${id}`)
  },
}

const countCommand: Command = {
  name: 'agent count',
  summary: 'how many nodes have attested',
  options: [...filterOptions, ...serverOptions],
  async run(context) {
    using connection = await connectServer(context)
    const request = { filter: filterOf(context) }
    const answer = await connection
      .client(AgentDefinition)
      .countAgents(request, { signal: context.signal })
    context.print(
      context.json ? JSON.stringify({ count: answer.count }) : count(answer.count, 'agent'),
    )
  },
}

/** Streams that have not been sent the present bundle yet hold a rotation up: they are worth a word. */
function bundleText(status: Status): string {
  const { bundleSequenceNumber: held, workloadBundleSequenceNumber: sent } = status
  if (held === 0n) return 'none yet'
  return sent === held ? `number ${held}` : `number ${held}; a workload still has number ${sent}`
}

const reportTexts: Readonly<Record<string, string>> = {
  taken: 'the server has it',
  pending: 'the server does not have it yet',
  unsupported: 'this server counts none',
  none: 'none: the server is not followed by a feed',
}

const reportText = ({ report }: Status): string => reportTexts[report] ?? report

function authorityText(
  { authorityId, trust, svids, expiresAt }: AuthorityUse,
  now: number,
): string {
  return `${authorityId} (${trust}): ${count(svids, 'SVID')}, the last ${timeLeftText(expiresAt, now)}`
}

const status: Command = {
  name: 'agent status',
  summary: 'what the agent on this machine does, and whether it is well',
  options: agentAdministrationOptions,
  details: `
'Authority' lines count the X.509-SVIDs that this agent and its workloads have of each authority: one that is tainted is
done with here when its line is gone. 'Report' says whether the server knows all that.
Exit status 6 when the agent is not ready.`,
  async run(context) {
    using connection = await connectAgentAdministration(context)
    const status = await connection
      .client(DiagnosisDefinition)
      .getStatus({}, { signal: context.signal })
    if (status.state !== 'ready') context.setStatus(6)
    if (context.json) return context.print(JSON.stringify(agentStatusRecord(status)))
    const now = nowSeconds(context)
    const orNone = (at: number): string => (at === 0 ? 'none yet' : timeLeftText(at, now))
    for (const line of fields([
      ['State', status.state],
      ['Why', status.detail],
      ['Agent', status.agentId],
      ['SVID expires', orNone(status.agentSvidExpiresAt)],
      ['Last sync', orNone(status.lastSyncAt)],
      ['Clock', clockText(status)],
      ['Node attestor', `${status.nodeAttestor} ${status.nodeAttestorDetail}`.trim()],
      ['Entries', String(status.entries)],
      ['X.509-SVIDs', String(status.x509Svids)],
      ['JWT-SVIDs', String(status.jwtSvids)],
      ['Open streams', String(status.streams)],
      ['Bundle', bundleText(status)],
      ['Report', reportText(status)],
      ['Post-quantum', agentPqText(status)],
      ...status.authorities.map((use) => ['Authority', authorityText(use, now)] as const),
    ])) {
      context.print(line)
    }
  },
}

export const commands: readonly Command[] = [list, show, ban, evict, countCommand, status]
