import { type Key, KeysDefinition, type Status } from '#rpc/gen/assay/server/v1/keys.ts'
import { type Command, type CommandContext, nowSeconds } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, durationText, fields, named, table, timeLeftText, timeText } from '../print.ts'
import { rotate } from './hsm-rotate.ts'

const keyRecord = (key: Key) => ({
  id: key.id,
  type: key.type,
  pq_parameter_set: key.pqParameterSet,
  purpose: key.purpose,
  state: key.state,
  present: key.isPresent,
  where: key.where,
  away: key.away,
  tainted: key.tainted,
  authority_id: key.authorityId,
  created_at: timeText(key.createdAt),
  expires_at: timeText(key.expiresAt),
  signed_until: timeText(key.signedUntil),
  minted_until: timeText(key.mintedUntil),
  nodes: key.nodes,
  svids: key.svids,
  next_event: key.nextEvent,
  next_event_at: timeText(key.nextEventAt),
})

const record = ({ propagation, ...status }: Status) => ({
  state: status.state,
  detail: status.detail,
  where: status.where,
  pq_where: status.pqWhere,
  keys: status.keys.map(keyRecord),
  bundle: {
    // 64 bits: not a number in JSON.
    sequence_number: String(propagation?.bundleSequenceNumber ?? 0n),
    live_nodes: propagation?.live ?? 0,
    acknowledged: propagation?.acknowledged ?? 0,
    lacking: propagation?.lacking ?? [],
    away: propagation?.away ?? 0,
  },
  rotations: status.rotations.map((rotation) => ({
    kind: rotation.kind,
    predecessor_id: rotation.predecessorId,
    started_at: timeText(rotation.startedAt),
    retire: rotation.retire,
  })),
})

function keyState(key: Key): string {
  const state = key.state === '' ? 'orphan' : key.state
  const notes = [
    key.tainted ? 'tainted' : '',
    key.away ? 'away' : '',
    key.isPresent ? '' : 'key destroyed',
  ]
  return [state, ...notes.filter((note) => note !== '')].join(', ')
}

/** Who would miss an authority. */
function dependents(key: Key, now: number): string {
  if (key.purpose === '') return ''
  if (key.signedUntil <= now) return 'nobody'
  const until = `until ${timeLeftText(key.signedUntil, now)}`
  if (key.purpose === 'jwt') return `tokens ${until}`
  if (key.nodes === 0) {
    return key.mintedUntil > now
      ? `what was minted, or a server below, until ${timeLeftText(key.mintedUntil, now)}`
      : 'no node'
  }
  const nodes = count(key.nodes, 'node')
  return key.svids === 0
    ? `perhaps ${nodes} ${until}`
    : `${count(key.svids, 'SVID')} on ${nodes} ${until}`
}

function printKeys(context: CommandContext, status: Status): void {
  const now = nowSeconds(context)
  // One token needs no column: it stands above.
  const places = new Set(status.keys.map(({ where }) => where).filter((where) => where !== ''))
  const isSpread = places.size > 1
  const rows = status.keys.map((key) => [
    key.id,
    ...(isSpread ? [key.where] : []),
    key.pqParameterSet === '' ? key.type : `${key.type} + ${key.pqParameterSet}`,
    key.purpose === '' ? 'none' : key.purpose,
    keyState(key),
    key.createdAt === 0 ? '' : durationText(now - key.createdAt),
    dependents(key, now),
    key.nextEvent === '' ? '' : `${key.nextEvent} ${timeLeftText(key.nextEventAt, now)}`,
    key.authorityId,
  ])
  if (rows.length === 0) context.note('no key')
  if (rows.length === 0) return
  const headings = [
    'key',
    ...(isSpread ? ['in'] : []),
    'type',
    'for',
    'state',
    'age',
    'depends on it',
    'next',
    'authority',
  ]
  for (const line of table(headings, rows)) context.print(line)
}

function bundleText({ propagation }: Status): string {
  if (propagation === undefined) return ''
  const { bundleSequenceNumber, live, acknowledged, lacking, away } = propagation
  const missing = lacking.length === 0 ? '' : `, not yet ${named(lacking, live - acknowledged)}`
  const absent = away === 0 ? '' : `; ${count(away, 'node')} away`
  const held = `${acknowledged} of ${count(live, 'live node')}`
  return `number ${bundleSequenceNumber}, held by ${held}${missing}${absent}`
}

const rotationText = (status: Status, now: number): string =>
  status.rotations
    .map(
      ({ kind, startedAt, retire }) =>
        `${kind}, begun ${timeLeftText(startedAt, now)}, is not done: 'assay hsm rotate ${kind}${retire ? ' --retire' : ''}' goes on with it`,
    )
    .join('; ')

const status: Command = {
  name: 'hsm status',
  summary:
    'whether signing works, which keys there are, who depends on them, and what happens next',
  options: serverOptions,
  details: `
Exit status 6 when signing does not work. Also answers for the key managers 'disk' and 'memory'.
A key that no authority has is an orphan: it is listed, and left alone. It may be another server's.
The last column is what 'assay authority' and 'assay hsm rotate' call an authority.`,
  async run(context) {
    using connection = await connectServer(context)
    const answer = await connection.client(KeysDefinition).getStatus({}, { signal: context.signal })
    if (answer.state !== 'ok') context.setStatus(6)
    if (context.json) return context.print(JSON.stringify(record(answer)))
    for (const line of fields([
      ['Signing', answer.state],
      [answer.state === 'ok' ? 'But' : 'Why', answer.detail],
      ['Keys in', answer.where],
      ['PQ keys in', answer.pqWhere],
      ['Bundle', bundleText(answer)],
      ['Rotation', rotationText(answer, nowSeconds(context))],
    ])) {
      context.print(line)
    }
    context.print('')
    printKeys(context, answer)
  },
}

const keys: Command = {
  name: 'hsm keys',
  summary: 'every signing key',
  options: serverOptions,
  async run(context) {
    using connection = await connectServer(context)
    const answer = await connection.client(KeysDefinition).getStatus({}, { signal: context.signal })
    if (context.json) context.print(JSON.stringify(record(answer).keys))
    else printKeys(context, answer)
  },
}

const resume: Command = {
  name: 'hsm resume',
  summary: 'try the PIN again after the token refused it',
  options: serverOptions,
  details: `
A wrong PIN is tried once and never again, because tokens lock themselves. Correct the PIN first. It is tried for each
token that refused one: the key manager's, its standby, that of the upstream authority.`,
  async run(context) {
    using connection = await connectServer(context)
    const answer = await connection.client(KeysDefinition).resume({}, { signal: context.signal })
    if (answer.state !== 'ok') context.setStatus(6)
    context.print(
      context.json
        ? JSON.stringify(record(answer))
        : `signing: ${answer.state} ${answer.detail}`.trim(),
    )
  },
}

const acceptClock: Command = {
  name: 'hsm accept-clock',
  summary: "say that the server's clock is right, although something was issued at a later time",
  options: serverOptions,
  details: `For a server that issues nothing because its clock went back: it had been ahead when something was signed.
Make sure first that the clock is right now. What was signed ahead of time stays valid until its end.`,
  async run(context) {
    using connection = await connectServer(context)
    const { now } = await connection
      .client(KeysDefinition)
      .acceptClock({}, { signal: context.signal })
    const accepted = timeText(now)
    context.print(context.json ? JSON.stringify({ accepted }) : `accepted ${accepted}`)
  },
}

export const commands: readonly Command[] = [status, keys, rotate, resume, acceptClock]
