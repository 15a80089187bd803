import type { IssueTime } from '../ca/issue-time.ts'
import type {
  AuthorityKindName,
  AuthorityRecord,
  IssuedRecord,
  PreparingRecord,
  RotationRecord,
} from './journal.ts'
import type { JournalStore } from './journal-store.ts'
import type { SignedUntil } from './signed-until.ts'

/** The records of one kind in the journal. Every change is durable before it can be seen. */
export class AuthorityRecords {
  readonly #journal: JournalStore
  readonly #kind: AuthorityKindName
  readonly #time: IssueTime
  readonly #signedUntil: SignedUntil

  constructor(
    journal: JournalStore,
    of: {
      readonly kind: AuthorityKindName
      readonly time: IssueTime
      readonly signedUntil: SignedUntil
    },
  ) {
    this.#journal = journal
    this.#kind = of.kind
    this.#time = of.time
    this.#signedUntil = of.signedUntil
  }

  /** In the order in which they were begun. */
  get all(): readonly AuthorityRecord[] {
    return this.#journal.value[this.#kind]
  }

  get preparing(): PreparingRecord | undefined {
    return this.all.find((record) => record.state === 'preparing')
  }

  get prepared(): IssuedRecord | undefined {
    return this.all.find((record): record is IssuedRecord => record.state === 'prepared')
  }

  get active(): IssuedRecord | undefined {
    return this.all.find((record): record is IssuedRecord => record.state === 'active')
  }

  get old(): readonly IssuedRecord[] {
    return this.all.filter((record): record is IssuedRecord => record.state === 'old')
  }

  /** Unix time at which the last of what the authority signed expires. Zero: it has signed nothing. */
  signedUntilSeconds({ keyId, signedUntilSeconds }: AuthorityRecord): number {
    return Math.max(signedUntilSeconds, this.#signedUntil.of(keyId))
  }

  /** Whether its key signs something that nobody has yet. */
  isSigning({ keyId }: AuthorityRecord): boolean {
    return this.#signedUntil.isSigning(keyId)
  }

  /** An SVID that expires then was signed for an operator, or a CA for a downstream server. */
  async noteMinted(authorityId: string, untilSeconds: number): Promise<void> {
    const isNews = ({ issued, mintedUntilSeconds = 0 }: AuthorityRecord): boolean =>
      issued?.authorityId === authorityId && mintedUntilSeconds < untilSeconds
    if (!this.all.some(isNews)) return
    await this.update((record) =>
      isNews(record) ? { ...record, mintedUntilSeconds: untilSeconds } : record,
    )
  }

  /** The rotation that an operator has asked for. */
  get rotation(): RotationRecord | undefined {
    return this.#journal.value.rotations[this.#kind]
  }

  /** Undefined: it is done. */
  async setRotation(rotation: RotationRecord | undefined): Promise<void> {
    const { [this.#kind]: _, ...others } = this.#journal.value.rotations
    await this.#journal.save({
      ...this.#journal.value,
      rotations: rotation === undefined ? others : { ...others, [this.#kind]: rotation },
    })
  }

  /** Replaces, adds and removes records in one write; `change` returns undefined for one to forget. */
  async update(
    change: (record: AuthorityRecord) => AuthorityRecord | undefined,
    added: readonly AuthorityRecord[] = [],
  ): Promise<void> {
    const changed = this.all
      .map(change)
      .filter((record) => record !== undefined)
      .map((record) => ({ ...record, signedUntilSeconds: this.signedUntilSeconds(record) }))
    await this.#journal.save({
      ...this.#journal.value,
      newestIssueSeconds: this.#time.newestSeconds,
      [this.#kind]: [...changed, ...added],
    })
  }

  /** Replaces the record of the same key. */
  async replace(record: AuthorityRecord): Promise<void> {
    await this.update((present) => (present.keyId === record.keyId ? record : present))
  }
}
