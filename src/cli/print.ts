/** Seconds as a person says them: `3 d 4 h`, `12 m 5 s`. Two units at most. */
export function durationText(totalSeconds: number): string {
  const units: readonly (readonly [string, number])[] = [
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ]
  let rest = Math.max(0, Math.floor(totalSeconds))
  const parts: string[] = []
  for (const [name, size] of units) {
    const count = Math.floor(rest / size)
    rest -= count * size
    if (count > 0 || (name === 's' && parts.length === 0)) parts.push(`${count} ${name}`)
    else if (parts.length > 0) break
    if (parts.length === 2) break
  }
  return parts.join(' ')
}

/** RFC 3339 in UTC; empty for zero, which everywhere means "not set". */
export function timeText(epochSeconds: number): string {
  if (epochSeconds === 0) return ''
  return Temporal.Instant.fromEpochMilliseconds(epochSeconds * 1000).toString({
    smallestUnit: 'second',
  })
}

/** A time with how far away it is: `2026-01-01T00:00:00Z (in 5 h 3 m)`. */
export function timeLeftText(epochSeconds: number, nowSeconds: number): string {
  if (epochSeconds === 0) return 'never'
  const left = epochSeconds - nowSeconds
  const distance = left >= 0 ? `in ${durationText(left)}` : `${durationText(-left)} ago`
  return `${timeText(epochSeconds)} (${distance})`
}

/** Lines of a table: columns as wide as their content, two spaces between, headings in capitals. */
export function table(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): readonly string[] {
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  return [line(headings.map((heading) => heading.toUpperCase())), ...rows.map(line)]
}

/** A time as `--json` has it; undefined, which JSON leaves out, when it is not set. */
export const timeValue = (epochSeconds: number): string | undefined =>
  epochSeconds === 0 ? undefined : timeText(epochSeconds)

/** Lines of `name  value` pairs, names padded to one width. Pairs with an empty value are left out. */
export function fields(pairs: readonly (readonly [string, string])[]): readonly string[] {
  const shown = pairs.filter(([, value]) => value !== '')
  const width = Math.max(0, ...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}`)
}

/** The last part of each ID, of as many as fit a line: `n001, n002 and 7 more`. `of`: how many there are. */
export function named(ids: readonly string[], of = ids.length): string {
  const shown = ids.slice(0, 3).map((id) => {
    const name = id.slice(id.lastIndexOf('/') + 1)
    return name.length > 16 ? `${name.slice(0, 12)}…` : name
  })
  const rest = of - shown.length
  return rest > 0 ? `${shown.join(', ')} and ${rest} more` : shown.join(', ')
}

/** `1 entry`, `2 entries`. */
export function count(of: number, one: string, many = `${one}s`): string {
  return `${of} ${of === 1 ? one : many}`
}

/** Groups of lines with an empty line between them. */
export function blocks(groups: readonly (readonly string[])[]): readonly string[] {
  return groups
    .filter((group) => group.length > 0)
    .flatMap((group, index) => (index === 0 ? group : ['', ...group]))
}

/**
 * A line as it may go to a terminal. Some of what is shown was written by strangers: control characters, with which they
 * could drive the terminal or begin a line that passes for ours, and marks that reverse the order of letters become
 * escapes (`\u001b`).
 */
export function visible(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is for
    /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
