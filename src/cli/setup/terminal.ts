import process from 'node:process'
import { createInterface } from 'node:readline/promises'
import { UsageError } from '../command.ts'

/** Where questions go. */
export interface Terminal {
  /** False: nobody can be asked, and what is not given is missing. */
  readonly canAsk: boolean
  /** @returns what was typed, or `otherwise` for nothing. */
  ask(question: string, otherwise?: string): Promise<string>
}

/** The terminal that the command was started from, if it was. */
export function openTerminal(signal: AbortSignal): Terminal {
  const canAsk = process.stdin.isTTY === true && process.stderr.isTTY === true
  return {
    canAsk,
    async ask(question, otherwise) {
      if (!canAsk) throw notGiven(question)
      const prompt = createInterface({ input: process.stdin, output: process.stderr })
      try {
        const shown = otherwise === undefined ? '' : ` [${otherwise}]`
        for (;;) {
          const answer = (await prompt.question(`${question}${shown}: `, { signal })).trim()
          if (answer !== '') return answer
          if (otherwise !== undefined) return otherwise
        }
      } finally {
        prompt.close()
      }
    },
  }
}

const notGiven = (question: string): UsageError =>
  new UsageError(
    `nobody can be asked here: ${question}? Give it by an option or in --answers; --help names them`,
  )
