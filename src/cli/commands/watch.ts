import { Backoff } from '#base/backoff.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { X509Context } from '#workload-client/workload-api.ts'
import { type Command, type CommandContext, nowSeconds } from '../command.ts'
import { agentStreamOptions, pqOption, streamWorkloadApi } from '../daemons.ts'
import { timeText } from '../print.ts'
import { withRemedy } from '../workload-call.ts'
import { printX509, x509Record } from '../x509-svids.ts'

function printUpdate(context: CommandContext, x509: X509Context): void {
  const at = timeText(nowSeconds(context))
  if (context.json) {
    context.print(JSON.stringify({ at, ...x509Record(x509) }))
    return
  }
  context.print(`── ${at}`)
  printX509(context, x509)
  context.print('')
}

const watch: Command = {
  name: 'watch',
  summary: 'print every X.509 update the calling process gets, until interrupted',
  options: [pqOption, ...agentStreamOptions],
  details: `
With --json each update is one line. While the agent is away, as when it restarts, it is tried again.`,
  async run(context) {
    const { signal, clock, random } = context
    using api = await streamWorkloadApi(context)
    const backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 200 }),
      longest: Temporal.Duration.from({ seconds: 5 }),
      random,
    })
    let isAway = false
    for (;;) {
      let why = 'the agent ended the stream'
      try {
        for await (const x509 of api.x509Contexts(signal)) {
          if (isAway) context.note('the agent is back')
          isAway = false
          backoff.reset()
          printUpdate(context, x509)
        }
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof AssayError && error.code === 'unavailable')) {
          throw context.json ? error : withRemedy(error)
        }
        why = messageOf(error)
      }
      if (!isAway) context.note(`the agent is away, trying again: ${why}`)
      isAway = true
      await clock.sleep(backoff.next(), signal)
    }
  },
}

export const commands: readonly Command[] = [watch]
