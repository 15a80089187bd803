import process from 'node:process'

const colour = process.stdout.isTTY && process.env['NO_COLOR'] === undefined
const paint = (code: string, text: string): string =>
  colour ? `\x1b[${code}m${text}\x1b[0m` : text

let step = 0

/** One line: what happened, and what proves it. */
export function done(what: string, proof: string): void {
  step++
  console.log(
    `${paint('32', '✔')} ${String(step).padStart(2)}  ${what}\n       ${paint('2', proof)}`,
  )
}

export function heading(text: string): void {
  console.log(`\n${paint('1', text)}`)
}

export function line(text = ''): void {
  console.log(text)
}

export function failure(message: string): void {
  console.error(`${paint('31', '✘')} ${message}`)
}
