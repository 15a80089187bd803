const form = /^(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?$/

/**
 * Seconds of `90s`, `15m`, `24h`, `1h30m`: hours, minutes and seconds in this order, each at most once.
 *
 * @throws SyntaxError when `text` is not of this form.
 */
export function parseDuration(text: string): number {
  const match = form.exec(text)
  if (match === null || text === '') {
    throw new SyntaxError(
      `invalid duration ${JSON.stringify(text.slice(0, 64))}: write it like 90s, 15m, 24h or 1h30m`,
    )
  }
  const [, hours = '0', minutes = '0', seconds = '0'] = match
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
}

/** The shortest text of a whole number of seconds: `1h30m`, `0s`. */
export function formatDuration(seconds: number): string {
  const parts: readonly (readonly [number, string])[] = [
    [Math.trunc(seconds / 3600), 'h'],
    [Math.trunc(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ]
  const text = parts.map(([count, unit]) => (count === 0 ? '' : `${count}${unit}`)).join('')
  return text === '' ? '0s' : text
}
