/**
 * A JSON log line as `time LEVEL message key=value …`. Whatever came from outside is quoted when it holds
 * anything but plain characters, so that it can neither begin a new line nor pass for another field.
 */
export function textLine(json: string): string {
  const { time, level, message, ...fields } = JSON.parse(json) as Record<string, unknown>
  const words = [String(time), String(level).toUpperCase().padEnd(5), plain(String(message))]
  for (const [key, value] of Object.entries(forPeople(fields)))
    words.push(`${plain(key)}=${valueText(value)}`)
  return `${words.join(' ')}\n`
}

/** An error that is described as an object reads as what it says, its reason, and its causes. */
function forPeople(fields: Record<string, unknown>): Record<string, unknown> {
  const { error, ...others } = fields
  if (!isDescribed(error)) return fields
  const chain: DescribedError[] = []
  for (let one: unknown = error; isDescribed(one); one = one.cause) chain.push(one)
  const messages: string[] = []
  for (const { message } of chain) {
    // Many an error ends with the words of its cause.
    if (!messages.some((told) => told.includes(message))) messages.push(message)
  }
  const stack = chain.find((one) => one.stack !== undefined)?.stack
  return {
    error: messages.join(': '),
    ...(error.reason !== undefined && { reason: error.reason }),
    ...others,
    ...(stack !== undefined && { stack }),
  }
}

/** As `openLog` writes it. */
interface DescribedError {
  readonly message: string
  readonly reason?: unknown
  readonly cause?: unknown
  readonly stack?: unknown
}

const isDescribed = (value: unknown): value is DescribedError =>
  typeof value === 'object' &&
  value !== null &&
  'message' in value &&
  typeof value.message === 'string'

function valueText(value: unknown): string {
  if (typeof value !== 'string') return plain(JSON.stringify(value))
  return /^[\w./:@+-]+$/.test(value) ? value : plain(JSON.stringify(value))
}

/** Control characters, which could drive a terminal, as escapes. */
function plain(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
