import { type Command, nowSeconds } from '../command.ts'
import { agentStreamOptions, streamWorkloadApi } from '../daemons.ts'
import { timeText } from '../print.ts'
import { printX509, x509Record } from '../x509-svids.ts'

const watch: Command = {
  name: 'watch',
  summary: 'print every X.509 update the calling process gets, until interrupted',
  options: agentStreamOptions,
  details: 'With --json each update is one line.',
  async run(context) {
    using api = await streamWorkloadApi(context)
    for await (const x509 of api.x509Contexts(context.signal)) {
      const at = timeText(nowSeconds(context))
      if (context.json) {
        context.print(JSON.stringify({ at, ...x509Record(x509) }))
        continue
      }
      context.print(`── ${at}`)
      printX509(context, x509)
      context.print('')
    }
  },
}

export const commands: readonly Command[] = [watch]
