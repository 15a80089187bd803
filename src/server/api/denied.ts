import { AssayError } from '#base/errors.ts'

/**
 * A refusal to let somebody call `method`. The text begins as SPIRE's does, which its clients look for; `why` says
 * which right is missing and what to do.
 */
export function denied(
  method: string,
  { reason = 'not-authorized', why }: { readonly reason?: string; readonly why?: string } = {},
): AssayError {
  const detail = why === undefined ? '' : `: ${why}`
  return new AssayError('permission-denied', `authorization denied for method ${method}${detail}`, {
    reason,
  })
}
