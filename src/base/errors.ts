/** What a caller can do about a failure. The one list that maps onto gRPC status codes (`rpc/status.ts`). */
export type ErrorCode =
  | 'invalid-argument'
  | 'unauthenticated'
  | 'permission-denied'
  | 'not-found'
  | 'already-exists'
  | 'failed-precondition'
  | 'resource-exhausted'
  | 'unavailable'
  | 'unimplemented'
  | 'internal'

/** What an {@link AssayError} may carry beside its message. */
export interface AssayErrorOptions extends ErrorOptions {
  /**
   * A stable machine-readable name for this failure, in kebab-case: `quote-nonce-mismatch`. It is what
   * audit records, metrics and `assay why` show, so it never changes once released.
   */
  readonly reason?: string
}

/**
 * A failure a caller is expected to tell apart; anything else that is thrown is a bug. The message crosses
 * the wire and must hold no secret; `cause` is for our own logs and never crosses it.
 */
export class AssayError extends Error {
  override readonly name = 'AssayError'
  readonly code: ErrorCode
  readonly reason: string | undefined

  constructor(code: ErrorCode, message: string, options?: AssayErrorOptions) {
    super(message, options)
    this.code = code
    this.reason = options?.reason
  }
}

/** The message of anything that can be thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
