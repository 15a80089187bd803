import { AssayError, messageOf } from '#base/errors.ts'

/** What to do about a certificate of the server that was refused, by the reason of the refusal. */
const remedies: ReadonlyMap<string | undefined, string> = new Map([
  // A clock that is off shows so; say it before somebody looks for a fault in the PKI.
  ['certificate-expired', "by the clock of this node: compare it with the server's"],
  ['certificate-not-yet-valid', "by the clock of this node: compare it with the server's"],
  [
    'unknown-authority',
    'the trust bundle of this node is not that of the server: give it the one of "assay bundle show", and remove bundle.json from data_dir',
  ],
])

/** What was in the way of reaching the server, with the remedy where there is one. */
export function explainServerError(error: unknown): string {
  const remedy = error instanceof AssayError ? remedies.get(error.reason) : undefined
  return remedy === undefined ? messageOf(error) : `${messageOf(error)} (${remedy})`
}
