import { version } from '#base/version.ts'
import { type Command, UsageError } from './command.ts'
import { agentCommands } from './commands/agent.ts'
import { bundleCommands } from './commands/bundle.ts'
import { diagnosisCommands } from './commands/diagnosis.ts'
import { entryCommands } from './commands/entry.ts'
import { hsmCommands } from './commands/hsm.ts'
import { inventoryCommands } from './commands/inventory.ts'
import { mintCommands } from './commands/mint.ts'
import { tpmCommands } from './commands/tpm.ts'
import { workloadCommands } from './commands/workload.ts'
import { completionScripts, completions } from './completion.ts'

const shellCommands: readonly Command[] = [
  {
    name: 'completion',
    summary: 'a script that makes bash, zsh or fish complete assay',
    positionals: 'SHELL',
    options: [],
    details: `
  assay completion bash > /etc/bash_completion.d/assay
  assay completion zsh  > /usr/share/zsh/site-functions/_assay
  assay completion fish > /usr/share/fish/vendor_completions.d/assay.fish`,
    async run(context) {
      const [shell = ''] = context.positionals
      if (!Object.hasOwn(completionScripts, shell)) {
        throw new UsageError(
          `'assay completion' needs a SHELL: ${Object.keys(completionScripts).join(', ')}`,
        )
      }
      context.print(completionScripts[shell as keyof typeof completionScripts].trimEnd())
    },
  },
  {
    name: 'complete',
    summary: 'what may follow some words, for the completion scripts',
    positionals: 'WORD…',
    options: [],
    async run(context) {
      for (const candidate of completions(commands, context.positionals)) context.print(candidate)
    },
  },
  {
    name: 'version',
    summary: 'which version this is',
    options: [],
    async run(context) {
      context.print(context.json ? JSON.stringify({ version }) : `assay ${version}`)
    },
  },
]

/** Every command there is, in the order in which help lists them. */
export const commands: readonly Command[] = [
  ...entryCommands,
  ...agentCommands,
  ...bundleCommands,
  ...tpmCommands,
  ...inventoryCommands,
  ...hsmCommands,
  ...mintCommands,
  ...workloadCommands,
  ...diagnosisCommands,
  ...shellCommands,
]
