import { AssayError } from '#base/errors.ts'
import {
  type Status as AgentStatus,
  DiagnosisDefinition,
} from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { KeysDefinition, type Status as KeysStatus } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition, type ServerOverview } from '#rpc/gen/assay/server/v1/overview.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  nowSeconds,
  optional,
  seconds,
} from '../command.ts'
import { administrationOptions, connectAgentAdministration, connectServer } from '../daemons.ts'
import { holding } from '../hold.ts'
import {
  blocks,
  count,
  durationText,
  fields,
  table,
  timeLeftText,
  timeText,
  timeValue,
} from '../print.ts'
import { agentPqText, agentStatusRecord } from '../wire.ts'

/** What can be seen from here: a server, an agent, or both. */
interface Seen {
  readonly server: { readonly overview: ServerOverview; readonly keys: KeysStatus } | undefined
  readonly agent: AgentStatus | undefined
  /** Those that are there and cannot be asked: one that hangs takes nothing of the other away. */
  readonly unanswered: readonly Unanswered[]
}

interface Unanswered {
  readonly program: 'assay-server' | 'assay-agent'
  readonly error: AssayError
}

/** How long each of the two may take, unless --timeout says so. */
const partSeconds = 5

/**
 * Asks what is there, both at once. One that does not run here is no failure unless its socket was named; one that this
 * user may not ask, or that does not answer, ends the command only when there is no other.
 */
async function look(context: CommandContext): Promise<Seen> {
  const closed: AssayError[] = []
  const unanswered: Unanswered[] = []
  const limitSeconds = seconds(context, 'timeout', partSeconds)
  const part = async <T>(
    of: { readonly program: Unanswered['program']; readonly option: string },
    ask: (context: CommandContext) => Promise<T>,
  ): Promise<T | undefined> => {
    try {
      return await holding(context, limitSeconds, (signal) =>
        // Its end is not that of the command.
        ask({ ...context, signal, cancel: () => undefined }),
      )
    } catch (error) {
      context.signal.throwIfAborted()
      if (!(error instanceof AssayError)) throw error
      if (error.reason !== 'not-connected') unanswered.push({ program: of.program, error })
      else if (optional(context, of.option) !== undefined) throw error
      else if (error.code === 'permission-denied') closed.push(error)
      return undefined
    }
  }
  const [server, agent] = await Promise.all([
    part({ program: 'assay-server', option: 'socket-path' }, async (within) => {
      const { signal } = within
      using connection = await connectServer(within)
      const [overview, keys] = await Promise.all([
        connection.client(OverviewDefinition).get({}, { signal }),
        connection.client(KeysDefinition).getStatus({}, { signal }),
      ])
      return { overview, keys }
    }),
    part({ program: 'assay-agent', option: 'admin-socket-path' }, async (within) => {
      using connection = await connectAgentAdministration(within)
      return await connection.client(DiagnosisDefinition).getStatus({}, { signal: within.signal })
    }),
  ])
  if (server !== undefined || agent !== undefined) return { server, agent, unanswered }
  const [silent] = unanswered
  const [refused] = closed
  throw (
    silent?.error ??
    refused ??
    new AssayError(
      'unavailable',
      "neither assay-server nor assay-agent answers here; 'assay doctor' says why",
      { reason: 'not-connected' },
    )
  )
}

const isWell = ({ server, agent, unanswered }: Seen): boolean =>
  unanswered.length === 0 &&
  (server === undefined || (server.overview.ready && server.overview.wentBack === undefined)) &&
  (agent === undefined || agent.state === 'ready')

/** How long workloads notice nothing when the server dies now. */
export interface FirstBreak {
  /** Seconds from now; undefined: no workload has anything that could expire. */
  readonly inSeconds: number | undefined
  /** The node whose workload it is; empty when it is worked out from lifetimes. */
  readonly agentId: string
}

/**
 * By what nodes say they hold. For those that say nothing, as SPIRE's agents, by the worst moment: an agent renews an SVID
 * at about half of its life, so that the first to expire has nearly half of the shortest lifetime left, 45 % to be
 * exact (`spiffe/rotation.ts`).
 */
export function firstBreak(
  {
    firstBreak: known,
    shortestX509SvidTtl,
  }: Pick<ServerOverview, 'firstBreak' | 'shortestX509SvidTtl'>,
  now: number,
): FirstBreak {
  const { expiresAt = 0, agentId = '', silentNodes = 1 } = known ?? {}
  const said = { inSeconds: expiresAt > now ? expiresAt - now : undefined, agentId }
  if (silentNodes === 0 || shortestX509SvidTtl === 0) return said
  const inSeconds = Math.floor(shortestX509SvidTtl * 0.45)
  if (said.inSeconds !== undefined && said.inSeconds <= inSeconds) return said
  return { inSeconds, agentId: '' }
}

function withoutServerText(overview: ServerOverview, now: number): string {
  const { shortestX509SvidTtl, shortestJwtSvidTtl, firstBreak: known } = overview
  const { inSeconds, agentId } = firstBreak(overview, now)
  if (shortestX509SvidTtl === 0) return 'no workload breaks: there are no entries'
  const jwt = `new JWT-SVIDs stop at once, the ones there are end within ${durationText(shortestJwtSvidTtl)}`
  if (inSeconds === undefined) return `no node holds an X.509-SVID of a workload; ${jwt}`
  if (agentId !== '') {
    return `the first X.509-SVID of a workload ends in ${durationText(inSeconds)}, on ${agentId}; ${jwt}`
  }
  const silent = count(known?.silentNodes ?? 0, 'node')
  return `the first X.509-SVID may end in ${durationText(inSeconds)} (lifetimes from ${durationText(shortestX509SvidTtl)}, renewed at half: ${silent} did not say what workloads hold); ${jwt}`
}

function serverRecord({ overview, keys }: NonNullable<Seen['server']>) {
  const { nodes, wentBack, pq } = overview
  const broken = firstBreak(overview, overview.now)
  return {
    version: overview.version,
    trust_domain: overview.trustDomain,
    ready: overview.ready,
    started_at: timeValue(overview.startedAt),
    parts: overview.parts,
    signing: { state: keys.state, detail: keys.detail, where: keys.where },
    revision: String(overview.revision),
    nodes: nodes && {
      live: nodes.live,
      away: nodes.away,
      expired: nodes.expired,
      banned: nodes.banned,
      first_expiry: timeValue(nodes.firstExpiry),
      first_expiry_agent_id: nodes.firstExpiryAgentId || undefined,
    },
    pending_tpms: overview.pendingTpms,
    entries: overview.entries,
    pq: pq && {
      parameter_set: pq.parameterSet || undefined,
      nodes: pq.nodes,
      verified_nodes: pq.verifiedNodes,
      hybrid_connections: pq.hybridConnections,
      svids: pq.svids,
      hybrid_svids: pq.hybridSvids,
    },
    server_svid_expires_at: timeValue(overview.serverSvidExpiresAt),
    authorities: keys.keys
      .filter(({ purpose }) => purpose !== '')
      .map((key) => ({
        purpose: key.purpose,
        state: key.state,
        authority_id: key.authorityId,
        tainted: key.tainted || undefined,
        svids: key.svids,
        expires_at: timeValue(key.expiresAt),
        next_event: key.nextEvent,
        next_event_at: timeValue(key.nextEventAt),
      })),
    without_server: {
      first_x509_svid_ends_in: broken.inSeconds,
      first_x509_svid_agent_id: broken.agentId || undefined,
      silent_nodes: overview.firstBreak?.silentNodes,
      shortest_x509_svid_ttl: overview.shortestX509SvidTtl,
      shortest_jwt_svid_ttl: overview.shortestJwtSvidTtl,
    },
    went_back: wentBack && {
      agent_id: wentBack.agentId,
      agent_sequence: String(wentBack.agentSequence),
      server_sequence: String(wentBack.serverSequence),
      seen_at: timeValue(wentBack.seenAt),
    },
  }
}

/** How far the fleet has moved; empty when the server is of before there was such a thing. */
function pqText({ pq }: Pick<ServerOverview, 'pq'>): string {
  if (pq === undefined) return ''
  const signatures =
    pq.parameterSet === '' && pq.hybridSvids === 0
      ? 'SVIDs are signed classically alone'
      : `${pq.hybridSvids} of ${count(pq.svids, 'X.509-SVID')} signed with ${pq.parameterSet || 'ML-DSA'} too, shown by ${pq.verifiedNodes} of ${count(pq.nodes, 'node')}`
  return `${signatures}; key agreement hybrid with ${pq.hybridConnections} of ${count(pq.nodes, 'node')}`
}

function serverLines(
  { overview, keys }: NonNullable<Seen['server']>,
  now: number,
): readonly (readonly string[])[] {
  const { nodes, wentBack } = overview
  const troubles = overview.parts.filter(({ ready, detail }) => !ready || detail !== '')
  const head = fields([
    [
      'Server',
      `${overview.trustDomain}, ${overview.ready ? 'ready' : 'NOT READY'}, version ${overview.version}, up ${durationText(now - overview.startedAt)}`,
    ],
    ...troubles.map(({ name, detail }) => ['Trouble', `${name}: ${detail}`] as const),
    [
      'Trouble',
      wentBack === undefined
        ? ''
        : `the data went back: ${wentBack.agentId} holds bundle ${wentBack.agentSequence}, this server has ${wentBack.serverSequence} (backup.md)`,
    ],
    ['Signing', `${keys.state}, keys in ${keys.where}`],
    ['Datastore', `revision ${overview.revision}`],
    [
      'Nodes',
      nodes === undefined
        ? ''
        : `${nodes.live} live, ${nodes.away} away, ${nodes.expired} expired, ${nodes.banned} banned`,
    ],
    [
      'First node to expire',
      nodes === undefined || nodes.firstExpiry === 0
        ? ''
        : `${nodes.firstExpiryAgentId} ${timeLeftText(nodes.firstExpiry, now)}`,
    ],
    [
      'Waiting',
      overview.pendingTpms === 0
        ? ''
        : `${count(overview.pendingTpms, 'TPM')} for approval: assay inventory pending`,
    ],
    ['Entries', String(overview.entries)],
    ['Post-quantum', pqText(overview)],
    ['If the server dies now', withoutServerText(overview, now)],
  ])
  const rows = keys.keys
    .filter(({ purpose }) => purpose !== '')
    .map((key) => [
      key.purpose,
      key.tainted ? `${key.state}, tainted` : key.state,
      key.authorityId.slice(0, 16),
      timeLeftText(key.expiresAt, now),
      key.nextEvent === '' ? '' : `${key.nextEvent} ${timeLeftText(key.nextEventAt, now)}`,
    ])
  return [
    head,
    rows.length === 0 ? [] : table(['authority', 'state', 'id', 'expires', 'next'], rows),
  ]
}

function agentLines(status: AgentStatus, now: number): readonly string[] {
  const orNone = (at: number): string => (at === 0 ? 'none yet' : timeLeftText(at, now))
  return fields([
    ['Agent', `${status.agentId || 'not attested'}, ${status.state}`],
    ['Why', status.detail],
    ['SVID expires', orNone(status.agentSvidExpiresAt)],
    ['Last sync', orNone(status.lastSyncAt)],
    ['Node attestor', `${status.nodeAttestor} ${status.nodeAttestorDetail}`.trim()],
    ['Post-quantum', agentPqText(status)],
    [
      'Serving',
      `${count(status.entries, 'entry', 'entries')}, ${status.x509Svids} X.509-SVIDs, ${status.jwtSvids} JWT-SVIDs, ${count(status.streams, 'open stream')}`,
    ],
  ])
}

function print(context: CommandContext, seen: Seen): void {
  const { server, agent, unanswered } = seen
  if (context.json) {
    const record = {
      at: timeText(nowSeconds(context)),
      ...(server !== undefined && { server: serverRecord(server) }),
      ...(agent !== undefined && { agent: agentStatusRecord(agent) }),
      ...(unanswered.length > 0 && {
        unanswered: unanswered.map(({ program, error }) => ({ program, error: error.message })),
      }),
    }
    context.print(JSON.stringify(record))
    return
  }
  const now = nowSeconds(context)
  const groups = [
    ...(server === undefined ? [] : serverLines(server, now)),
    ...(agent === undefined ? [] : [agentLines(agent, now)]),
    fields(
      unanswered.map(({ program, error }) => [
        'Trouble',
        `${program} cannot be asked: ${error.message}; 'assay doctor' says more`,
      ]),
    ),
  ]
  for (const line of blocks(groups)) context.print(line)
}

const status: Command = {
  name: 'status',
  summary: 'the whole on one screen: server, keys, nodes, entries, what is next; or the agent',
  options: [
    { name: 'watch', summary: 'again and again, until interrupted' },
    { name: 'every', value: 'DURATION', summary: 'with --watch: how often; 2s when absent' },
    ...administrationOptions,
  ],
  details: `
Shows whichever of assay-server and assay-agent answers on this machine. Exit status 6 when one is not well, or is there
and does not answer within five seconds (or --timeout). How long
workloads would notice nothing is worked out from what entries ask for, for the worst moment; with --json and --watch
each look is a line.`,
  async run(context) {
    const every = Temporal.Duration.from({ seconds: Math.max(1, seconds(context, 'every', 2)) })
    for (;;) {
      const seen = await look(context)
      context.setStatus(isWell(seen) ? 0 : 6)
      print(context, seen)
      if (!isOn(context, 'watch')) return
      if (!context.json) context.print('')
      await context.clock.sleep(every, context.signal)
    }
  },
}

export const commands: readonly Command[] = [status]
