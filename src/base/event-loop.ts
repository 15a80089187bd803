import { setImmediate } from 'node:timers/promises'

/** Lets everything else that is due run before long work goes on: input, timers, other calls. */
export function nextTurn(): Promise<void> {
  return setImmediate()
}
