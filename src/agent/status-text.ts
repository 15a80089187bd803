import type { AgentState } from './status.ts'

/** What the line says. */
export interface StatusFacts {
  readonly state: AgentState
  /** For people; empty when all is well. */
  readonly detail: string
  readonly agentId: string | undefined
  readonly streams: number
  readonly entries: number
  /** Until the agent's own SVID is renewed; undefined: there is none. */
  readonly renewsInSeconds: number | undefined
}

/** How the agent is, in one line for `systemctl status`; what matters most comes first. */
export function statusText(facts: StatusFacts): string {
  const { state, detail, agentId, streams, entries, renewsInSeconds } = facts
  const because = detail === '' ? '' : `: ${detail}`
  if (agentId === undefined || state === 'stopped') {
    return state === 'stopped' ? `stopped${because}` : `not attested yet${because}`
  }
  return [
    state === 'ready' ? 'attested' : `${state}${because}`,
    `serving ${streams} ${streams === 1 ? 'stream' : 'streams'} from ${entries} ${entries === 1 ? 'entry' : 'entries'}`,
    ...(renewsInSeconds === undefined ? [] : [`SVID renews ${soon(renewsInSeconds)}`]),
    agentId,
  ].join(', ')
}

function soon(seconds: number): string {
  if (seconds < 60) return 'within a minute'
  const minutes = Math.round(seconds / 60)
  return minutes < 120 ? `in ${minutes} min` : `in ${Math.round(minutes / 60)} h`
}
