import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import type { Agent } from '#rpc/gen/spire/api/types/agent.ts'
import {
  all,
  type Command,
  type CommandContext,
  nowSeconds,
  type Option,
  optional,
  required,
  seconds,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, fields, timeLeftText } from '../print.ts'
import { agentRecord, idText, pages, wireId, wireSelectors } from '../wire.ts'

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
  { name: 'banned', summary: 'only banned nodes' },
  {
    name: 'expires-before',
    value: 'TIME',
    summary: 'only nodes whose SVID ends before this RFC 3339 time',
  },
]

/** SPIRE's spelling of a time in this one filter: `2006-01-02 15:04:05 -0700 -07`. */
function spireTime(text: string | undefined): string {
  if (text === undefined) return ''
  try {
    const utc = Temporal.Instant.from(text).toString({ smallestUnit: 'second' })
    return `${utc.replace('T', ' ').replace('Z', '')} +0000 +00`
  } catch (cause) {
    throw new UsageError(
      `option --expires-before is '${text}': write a time such as 2026-01-31T12:00:00Z`,
      { cause },
    )
  }
}

function filterOf(context: CommandContext) {
  const selectors = all(context, 'selector')
  return {
    byAttestationType: optional(context, 'attestation-type') ?? '',
    bySelectorMatch:
      selectors.length === 0
        ? undefined
        : { selectors: wireSelectors(selectors), match: 2 as const },
    byBanned: context.switches.has('banned') ? true : undefined,
    byCanReattest: undefined,
    byExpiresBefore: spireTime(optional(context, 'expires-before')),
  }
}

function printAgent(context: CommandContext, agent: Agent, withSelectors: boolean): void {
  const selectors = agent.selectors.map(
    ({ type, value }) => ['Selector', `${type}:${value}`] as const,
  )
  for (const line of fields([
    ['Agent', idText(agent.id)],
    ['Attested by', agent.attestationType],
    ['State', agent.banned ? 'banned' : 'admitted'],
    ['SVID serial', agent.x509svidSerialNumber],
    [
      'SVID expires',
      agent.banned ? '' : timeLeftText(agent.x509svidExpiresAt, nowSeconds(context)),
    ],
    ['Can re-attest', agent.canReattest ? 'yes' : 'no'],
    ['Version', agent.agentVersion],
    ...(withSelectors ? selectors : []),
  ])) {
    context.print(line)
  }
  context.print('')
}

const list: Command = {
  name: 'agent list',
  summary: 'the nodes that have attested',
  options: [...serverOptions, ...filterOptions],
  async run(context) {
    using connection = connectServer(context)
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
    if (context.json) return context.print(JSON.stringify(agents.map(agentRecord)))
    for (const agent of agents) printAgent(context, agent, false)
    context.note(count(agents.length, 'agent'))
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
  options: [...serverOptions, spiffeIdOption],
  async run(context) {
    using connection = connectServer(context)
    const id = wireId(required(context, 'spiffe-id'))
    const agent = await connection
      .client(AgentDefinition)
      .getAgent({ id }, { signal: context.signal })
    if (context.json) context.print(JSON.stringify(agentRecord(agent)))
    else printAgent(context, agent, true)
  },
}

const ban: Command = {
  name: 'agent ban',
  summary: 'stop a node now, and refuse it until it is evicted',
  options: [...serverOptions, spiffeIdOption],
  details: `
Its connections are cut, its agent drops what it holds, and it cannot attest again. 'assay agent evict' lifts
the ban. To refuse the hardware itself, whatever identity it asks for: 'assay inventory deny'.`,
  async run(context) {
    using connection = connectServer(context)
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
  options: [...serverOptions, spiffeIdOption],
  async run(context) {
    using connection = connectServer(context)
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
  options: [...serverOptions, ...filterOptions],
  async run(context) {
    using connection = connectServer(context)
    const request = { filter: filterOf(context) }
    const answer = await connection
      .client(AgentDefinition)
      .countAgents(request, { signal: context.signal })
    context.print(
      context.json ? JSON.stringify({ count: answer.count }) : count(answer.count, 'agent'),
    )
  },
}

const generateToken: Command = {
  name: 'token generate',
  summary: 'make a secret that lets one machine without a TPM join once',
  options: [
    ...serverOptions,
    { name: 'ttl', value: 'DURATION', summary: 'how long it can be used; 10m when absent' },
    {
      name: 'spiffe-id',
      value: 'ID',
      summary: 'gives the joining agent this identity beside its own',
    },
  ],
  async run(context) {
    using connection = connectServer(context)
    const spiffeId = optional(context, 'spiffe-id')
    const request = {
      ttl: seconds(context, 'ttl', 600),
      ...(spiffeId !== undefined && { agentId: wireId(spiffeId) }),
    }
    const token = await connection
      .client(AgentDefinition)
      .createJoinToken(request, { signal: context.signal })
    if (context.json)
      return context.print(JSON.stringify({ token: token.value, expires_at: token.expiresAt }))
    context.print(`Token: ${token.value}`)
    if (spiffeId === undefined) {
      context.note(
        'The agent gets only /spire/agent/join_token/<token>; --spiffe-id gives it a name that outlives the token.',
      )
    }
  },
}

export const agentCommands: readonly Command[] = [
  list,
  show,
  ban,
  evict,
  countCommand,
  generateToken,
]
