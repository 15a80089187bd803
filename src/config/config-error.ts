/** One thing that is wrong in a configuration file. */
export interface Problem {
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly column: number
  /** The key's whole path, `datastore.sqlite.path`; empty for the file itself. */
  readonly key: string
  /** What is wrong, and what is allowed instead. */
  readonly message: string
}

/** A configuration that cannot be used, with everything that is wrong in it and not only the first. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  /** In the order of the file; at least one. */
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[], options?: ErrorOptions) {
    const ordered = problems.toSorted((a, b) => a.line - b.line || a.column - b.column)
    super(ordered.map(problemText).join('\n'), options)
    this.problems = ordered
  }
}

/** `file:line:column: key: message`, the form editors and terminals make a link of. */
function problemText({ file, line, column, key, message }: Problem): string {
  return `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`
}
