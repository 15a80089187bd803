import { visible } from './print.ts'

/** One line, or several that are written at once. A line end within one is shown as an escape. */
export type Lines = string | readonly string[]

/** A stream that may be a terminal. */
interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

/**
 * Where a command's lines go: results to standard output, notes to standard error, and the state of long work to one
 * line of a terminal that is written over and over. Where standard error is no terminal there is no such line.
 */
export class Terminal {
  readonly #output: Output
  readonly #error: Output
  #progress = ''

  constructor(output: Output, error: Output) {
    this.#output = output
    this.#error = error
  }

  /** Lines to standard output, at once. */
  print(lines: Lines): void {
    this.#between(() => this.#output.write(written(lines)))
  }

  /** Lines to standard error, at once. */
  note(lines: Lines): void {
    this.#between(() => this.#error.write(written(lines)))
  }

  /** What long work has come to, in place of what was said before; empty: nothing. */
  progress(line: string): void {
    if (this.#error.isTTY !== true) return
    this.#erase()
    // One column stays free, or some terminals begin a new line.
    // Zero: it does not know its width.
    const width = this.#error.columns || 80
    this.#progress = visible(line).slice(0, width - 1)
    this.#error.write(this.#progress)
  }

  #between(write: () => void): void {
    const progress = this.#progress
    this.#erase()
    write()
    if (progress !== '') this.progress(progress)
  }

  #erase(): void {
    if (this.#progress !== '') this.#error.write('\r\u001b[2K')
    this.#progress = ''
  }
}

const written = (lines: Lines): string =>
  [lines]
    .flat()
    .map((line) => `${visible(line)}\n`)
    .join('')

/** `[████······] 4/10`, for a progress line. */
export function progressBar(done: number, of: number, width = 24): string {
  const filled = of === 0 ? width : Math.floor((Math.min(done, of) / of) * width)
  return `[${'█'.repeat(filled)}${'·'.repeat(width - filled)}] ${done}/${of}`
}
