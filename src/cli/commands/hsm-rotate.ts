import { Backoff } from '#base/backoff.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import { KeysDefinition, type RotationProgress } from '#rpc/gen/assay/server/v1/keys.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  nowSeconds,
  optional,
  seconds,
  UsageError,
} from '../command.ts'
import { serverOptions, streamServer } from '../daemons.ts'
import { count, named, timeLeftText, timeText } from '../print.ts'
import { progressBar } from '../terminal.ts'

type Kind = 'x509' | 'jwt'

interface Wishes {
  readonly retire: boolean
  readonly force: boolean
  readonly afterSeconds?: number
}

const record = (progress: RotationProgress) => ({
  kind: progress.kind,
  step: progress.step,
  started_at: timeText(progress.startedAt),
  predecessor_id: progress.predecessorId,
  successor_id: progress.successorId,
  nodes: progress.nodes,
  nodes_done: progress.nodesDone,
  waiting_for: progress.waitingFor,
  away: progress.away,
  svids: progress.svids,
  until: timeText(progress.until),
  detail: progress.detail,
})

/** What has been done, or is waited for; without the names of nodes, which change too often for a line of a log. */
function stepText(progress: RotationProgress, { afterSeconds }: Wishes): string {
  const { predecessorId: old, successorId: young } = progress
  switch (progress.step) {
    case 'begun':
      return `the successor of ${old} is being made`
    case 'prepared':
      return `${young} is made, and published in the bundle`
    case 'propagating':
      return afterSeconds === undefined
        ? `waiting until every live node has it${progress.until === 0 ? '' : `, at least until ${timeText(progress.until)}`}`
        : `waiting until ${timeText(progress.until)}`
    case 'activated':
      return `${young} signs now`
    case 'tainted':
      return `${old} is tainted: whatever it signed is being replaced`
    case 'replacing':
      return progress.detail === ''
        ? 'waiting until nothing that it signed is in use'
        : `waiting: ${progress.detail}${untilText(progress)}`
    case 'revoked':
      return `${old} is revoked and its key destroyed`
    case 'done':
      return `done: ${young} signs`
    default:
      return progress.step
  }
}

const untilText = ({ until }: RotationProgress): string =>
  until === 0 ? '' : `, at the latest ${timeText(until)}`

/** One line for the terminal. */
function waitText(context: CommandContext, progress: RotationProgress): string {
  const { step, nodes, nodesDone, waitingFor, away, svids, until, detail } = progress
  if (step !== 'propagating' && step !== 'replacing') return ''
  const what = step === 'propagating' ? 'nodes have the new authority' : 'nodes have replaced it'
  const left = step === 'replacing' && svids > 0 ? `, ${count(svids, 'SVID')} left` : ''
  const names =
    waitingFor.length === 0 ? '' : `, waiting for ${named(waitingFor, nodes - nodesDone)}`
  const absent = away === 0 ? '' : `, ${count(away, 'node')} away`
  const time = until === 0 ? '' : ` (goes on ${timeLeftText(until, nowSeconds(context))})`
  const more = detail === '' ? '' : `; ${detail}`
  return `${progress.kind}: ${progressBar(nodesDone, nodes)} ${what}${left}${names}${absent}${more}${time}`
}

/** Follows one rotation to its end, over restarts of the server. */
async function follow(context: CommandContext, kind: Kind, wishes: Wishes): Promise<void> {
  const { signal, clock, random } = context
  const backoff = new Backoff({
    first: Temporal.Duration.from({ milliseconds: 200 }),
    longest: Temporal.Duration.from({ seconds: 2 }),
    random,
  })
  let wasConnected = false
  let predecessorId = ''
  let told = ''
  /** What has been said of why nothing goes on: a token that is away is away in several words. */
  const troubles = new Set<string>()
  const show = (progress: RotationProgress): void => {
    predecessorId = progress.predecessorId
    if (context.json) {
      context.print(JSON.stringify(record(progress)))
      return
    }
    const text = `${kind}: ${stepText(progress, wishes)}`
    if (text !== told) context.print(text)
    told = text
    context.progress(waitText(context, progress))
  }
  for (;;) {
    try {
      using connection = await streamServer(context)
      if (!wasConnected) await tellOfEarlierWishes(context, kind, { wishes, connection })
      wasConnected = true
      const request = { ...wishes, kind, predecessorId }
      for await (const progress of connection.client(KeysDefinition).rotate(request, { signal })) {
        troubles.clear()
        backoff.reset()
        show(progress)
        if (progress.step === 'done') return
      }
      throw new AssayError('unavailable', 'the server ended the call')
    } catch (error) {
      signal.throwIfAborted()
      const isPassing = error instanceof AssayError && error.code === 'unavailable'
      if (!isPassing || !wasConnected) throw error
      const why = messageOf(error)
      if (troubles.size === 0 && !context.json) {
        context.note(
          `${kind}: nothing goes on now, and it is tried again and again. 'assay hsm status' says how the keys are; interrupting leaves everything in order, and the same command goes on`,
        )
      }
      if (!troubles.has(why)) context.note(`${kind}: trying again: ${why}`)
      troubles.add(why)
      await clock.sleep(backoff.next(), signal)
    }
  }
}

/** A rotation goes on as it was begun, whatever is asked for now. */
async function tellOfEarlierWishes(
  context: CommandContext,
  kind: Kind,
  { wishes, connection }: { readonly wishes: Wishes; readonly connection: Connection },
): Promise<void> {
  if (context.json) return
  const { rotations } = await connection
    .client(KeysDefinition)
    .getStatus({}, { signal: context.signal })
  const begun = rotations.find((rotation) => rotation.kind === kind)
  if (begun === undefined) return
  const how = begun.retire && !wishes.retire ? ' with --retire, and ends the old authority' : ''
  context.note(`${kind}: goes on with the rotation begun at ${timeText(begun.startedAt)}${how}`)
}

/** Retiring ends one authority. Those that were replaced before it are trusted until they expire. */
async function tellOfOlder(context: CommandContext, kind: Kind): Promise<void> {
  using connection = await streamServer(context)
  const { keys } = await connection.client(KeysDefinition).getStatus({}, { signal: context.signal })
  const purpose = kind === 'x509' ? 'x509-ca' : 'jwt'
  for (const key of keys) {
    if (key.purpose !== purpose || key.state !== 'old') continue
    context.note(
      `${kind}: ${key.authorityId}, replaced before, is trusted until it expires; 'assay authority taint ${kind} --authority-id ${key.authorityId}' and then 'revoke' end it`,
    )
  }
}

function kindsOf(context: CommandContext): readonly Kind[] {
  const [text] = context.positionals
  if (text === 'all') return ['x509', 'jwt']
  if (text === 'x509' || text === 'jwt') return [text]
  const given = text === undefined ? 'needs' : `'${text}' is none: it takes`
  throw new UsageError(`'assay hsm rotate' ${given} a KIND: x509, jwt or all`)
}

function wishesOf(context: CommandContext): Wishes {
  const force = isOn(context, 'force')
  const isTimed = optional(context, 'after') !== undefined
  if (force && isTimed) {
    throw new UsageError(
      'options --force and --after exclude each other: with --force there is no wait',
    )
  }
  return {
    retire: isOn(context, 'retire'),
    force,
    ...(isTimed && { afterSeconds: seconds(context, 'after', 0) }),
  }
}

/** `assay hsm rotate` */
export const rotate: Command = {
  name: 'hsm rotate',
  summary: 'replace the key that signs X.509-SVIDs, JWT-SVIDs or both, without anybody noticing',
  positionals: 'KIND',
  options: [
    {
      name: 'retire',
      summary:
        'then taint the old authority, wait until nothing that it signed is in use, revoke it',
    },
    {
      name: 'after',
      value: 'DURATION',
      summary: 'let the new key sign so long after it was published, whoever has it by then',
    },
    {
      name: 'force',
      summary: 'wait for no node: one that lacks the new authority refuses what it signs',
    },
    ...serverOptions,
  ],
  details: `
KIND is x509, jwt or all. The next key is made, of the type that the configuration names, and published in
the bundle. When every live node says that it and its workloads have it, it begins to sign. Nodes that are
away are not waited for; 'assay hsm status' counts them. The old authority stays in the bundle until it
expires; --retire ends it now.

Interrupting leaves everything in order: the same command goes on where it was, also after a restart of the
server. With --json each step is one line.`,
  async run(context) {
    const kinds = kindsOf(context)
    const wishes = wishesOf(context)
    try {
      for (const kind of kinds) {
        await follow(context, kind, wishes)
        if (wishes.retire && !context.json) await tellOfOlder(context, kind)
      }
    } catch (error) {
      if (context.signal.aborted && !context.json) {
        context.note('the rotation stays where it is; the same command goes on with it')
      }
      throw error
    }
  },
}
