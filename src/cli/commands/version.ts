import { version } from '#base/version.ts'
import type { Command } from '../command.ts'

const show: Command = {
  name: 'version',
  summary: 'which version this is',
  options: [],
  async run(context) {
    context.print(context.json ? JSON.stringify({ version }) : `assay ${version}`)
  },
}

export const commands: readonly Command[] = [show]
