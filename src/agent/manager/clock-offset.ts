/** Clocks that differ by more than this are worth an operator's attention. */
const tolerableMs = 60_000

/**
 * How far the clock of this node is off, for people: `the clock of this node is 6h02m behind the server's`;
 * undefined while that is tolerable.
 *
 * @param offsetMs how many milliseconds the server's clock is ahead of ours.
 */
export function clockProblem(offsetMs: number): string | undefined {
  if (Math.abs(offsetMs) <= tolerableMs) return undefined
  return `the clock of this node is ${lengthText(Math.abs(offsetMs))} ${offsetMs > 0 ? 'behind' : 'ahead of'} the server's`
}

function lengthText(milliseconds: number): string {
  const minutes = Math.round(milliseconds / 60_000)
  const hours = Math.trunc(minutes / 60)
  if (hours >= 48) return `${Math.round(hours / 24)} days`
  return hours === 0 ? `${minutes}m` : `${hours}h${String(minutes % 60).padStart(2, '0')}m`
}
