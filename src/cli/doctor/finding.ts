import { AssayError, messageOf } from '#base/errors.ts'
import type { CommandContext } from '../command.ts'
import { holding } from '../hold.ts'

/** How long one check may take. */
const checkSeconds = 60

/** How much it matters: `problem`, something does not work or will not; `warning`, it may. */
export type Level = 'ok' | 'warning' | 'problem'

/** One thing that was looked at. */
export interface Finding {
  /** The name of the check: `datastore`. */
  readonly check: string
  readonly level: Level
  /** What is so. One sentence, no full stop. */
  readonly what: string
  /** Why it matters; undefined when all is well. */
  readonly why?: string
  /** What mends it, a command where there is one. */
  readonly remedy?: string
}

/** A check of a subject (what is known of a server or agent). It reports what it finds, and throws for bugs only. */
export interface Check<Subject> {
  readonly name: string
  /** How long it may take, when that is less than for most; a daemon that does not answer in it is a problem. */
  readonly limitSeconds?: number
  run(subject: Subject, context: CommandContext): Promise<readonly Finding[]>
}

/** Something that is as it should be. */
export const well = (check: string, what: string): readonly Finding[] => [
  { check, level: 'ok', what },
]

/** Something that does not work. */
export const problem = (
  check: string,
  what: string,
  explained: { readonly why: string; readonly remedy: string },
): Finding => ({ check, level: 'problem', what, ...explained })

/** Something that may be meant, or may become a problem. */
export const warning = (
  check: string,
  what: string,
  explained: { readonly why: string; readonly remedy: string },
): Finding => ({ check, level: 'warning', what, ...explained })

/** Runs every check, one after the other. One that cannot look says so instead of ending the others. */
export async function runChecks<Subject>(
  checks: readonly Check<Subject>[],
  subject: Subject,
  context: CommandContext,
): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  for (const check of checks) {
    try {
      const found = await holding(context, check.limitSeconds ?? checkSeconds, (signal) =>
        check.run(subject, { ...context, signal }),
      )
      findings.push(...found)
    } catch (error) {
      context.signal.throwIfAborted()
      const isKnown = error instanceof AssayError || (error instanceof Error && 'code' in error)
      if (!isKnown) throw error
      if (
        check.limitSeconds !== undefined &&
        error instanceof AssayError &&
        error.reason === 'deadline-exceeded'
      ) {
        findings.push(
          problem(check.name, `the daemon does not answer: ${error.message}`, {
            why: 'it hangs, or has more to do than it can; its socket alone is no sign of life',
            remedy: 'restart it: systemctl restart assay-server or assay-agent; its log says more',
          }),
        )
        continue
      }
      findings.push(
        warning(check.name, `could not be looked at: ${messageOf(error)}`, {
          why: 'nothing is known of it',
          remedy: 'run assay doctor as root or as the user of the daemon',
        }),
      )
    }
  }
  return findings
}
