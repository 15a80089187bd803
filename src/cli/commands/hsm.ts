import { KeysDefinition, type Status } from '#rpc/gen/assay/server/v1/keys.ts'
import { type Command, type CommandContext, nowSeconds } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { fields, table, timeLeftText, timeText } from '../print.ts'

const record = (status: Status) => ({
  state: status.state,
  detail: status.detail,
  where: status.where,
  keys: status.keys.map((key) => ({
    id: key.id,
    type: key.type,
    purpose: key.purpose,
    state: key.state,
    authority_id: key.authorityId,
    created_at: timeText(key.createdAt),
    expires_at: timeText(key.expiresAt),
    next_event: key.nextEvent,
    next_event_at: timeText(key.nextEventAt),
  })),
})

function printKeys(context: CommandContext, status: Status): void {
  const now = nowSeconds(context)
  const rows = status.keys.map((key) => [
    key.id,
    key.type,
    key.purpose === '' ? 'none' : key.purpose,
    key.state === '' ? 'orphan' : key.state,
    key.expiresAt === 0 ? '' : timeLeftText(key.expiresAt, now),
    key.nextEvent === '' ? '' : `${key.nextEvent} ${timeLeftText(key.nextEventAt, now)}`,
  ])
  if (rows.length === 0) context.note('no key')
  else
    for (const line of table(['key', 'type', 'for', 'state', 'expires', 'next'], rows))
      context.print(line)
}

const status: Command = {
  name: 'hsm status',
  summary: 'whether signing works, where the keys are, and what happens to them next',
  options: serverOptions,
  details:
    "Exit status 6 when signing does not work. Also answers for the key managers 'disk' and 'memory'.",
  async run(context) {
    using connection = await connectServer(context)
    const answer = await connection.client(KeysDefinition).getStatus({}, { signal: context.signal })
    if (answer.state !== 'ok') context.setStatus(6)
    if (context.json) return context.print(JSON.stringify(record(answer)))
    for (const line of fields([
      ['Signing', answer.state],
      ['Why', answer.detail],
      ['Keys in', answer.where],
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
  details:
    'A wrong PIN is tried once and never again, because tokens lock themselves. Correct the PIN first.',
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

export const commands: readonly Command[] = [status, keys, resume, acceptClock]
