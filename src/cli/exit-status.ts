import { AssayError, type ErrorCode } from '#base/errors.ts'
import { UsageError } from './command.ts'

/** Exit statuses of `assay`, as help and the manual list them. */
export const exitStatuses = [
  [0, 'done'],
  [1, 'failed: the message says what and why'],
  [2, 'called wrongly: unknown command or option, bad value'],
  [3, 'not found'],
  [4, 'refused: the caller may not, or no identity is issued to it'],
  [5, 'unreachable: the server or agent does not answer'],
  [6, 'unhealthy: it answered that something is wrong'],
] as const

const statusOf: Partial<Record<ErrorCode, number>> = {
  'invalid-argument': 2,
  'not-found': 3,
  'permission-denied': 4,
  unauthenticated: 4,
  unavailable: 5,
}

/** The exit status that tells a script what went wrong; interrupted by signal N it is 128 + N, not of this list. */
export function exitStatusOf(error: unknown): number {
  if (error instanceof AssayError) return statusOf[error.code] ?? 1
  // Whatever parses a value throws SyntaxError.
  return error instanceof UsageError || error instanceof SyntaxError ? 2 : 1
}
