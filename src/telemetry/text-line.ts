/**
 * A JSON log line as `time LEVEL message key=value …`. Whatever came from outside is quoted when it holds
 * anything but plain characters, so that it can neither begin a new line nor pass for another field.
 */
export function textLine(json: string): string {
  const { time, level, message, ...fields } = JSON.parse(json) as Record<string, unknown>
  const words = [String(time), String(level).toUpperCase().padEnd(5), plain(String(message))]
  for (const [key, value] of Object.entries(fields)) words.push(`${plain(key)}=${valueText(value)}`)
  return `${words.join(' ')}\n`
}

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
