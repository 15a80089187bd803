import type { Selector } from '#spiffe/selector.ts'

/**
 * A process at the other end of a socket, held so that its number cannot come to mean another process
 * while it is looked at.
 */
export interface WorkloadProcess {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** @throws AssayError `permission-denied` when the process has ended or is no longer the one that connected. */
  assertSame(): void
}

/** One way to learn facts about a local process. */
export interface WorkloadAttestor {
  /** The type of its selectors: `unix`. */
  readonly type: string
  /**
   * The facts found, in any order. A fact that cannot be read is left out with a log line; the attestor
   * throws only when it can say nothing.
   */
  attest(process: WorkloadProcess, signal: AbortSignal): Promise<readonly Selector[]>

  /**
   * What is true of every process of a user, who is named or numbered as on this node. Absent: the attestor knows
   * nothing of users.
   *
   * @throws AssayError `not-found` when there is no such user.
   */
  attestUser?(user: string): Promise<readonly Selector[]>
}
