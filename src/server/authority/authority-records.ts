import type { IssueTime } from '../ca/issue-time.ts'
import type {
  AuthorityKindName,
  AuthorityRecord,
  IssuedRecord,
  PreparingRecord,
} from './journal.ts'
import type { JournalStore } from './journal-store.ts'

/** The records of one kind in the journal. Every change is durable before it can be seen. */
export class AuthorityRecords {
  readonly #journal: JournalStore
  readonly #kind: AuthorityKindName
  readonly #time: IssueTime

  constructor(journal: JournalStore, of: { kind: AuthorityKindName; time: IssueTime }) {
    this.#journal = journal
    this.#kind = of.kind
    this.#time = of.time
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

  /** Replaces, adds and removes records in one write; `change` returns undefined for one to forget. */
  async update(
    change: (record: AuthorityRecord) => AuthorityRecord | undefined,
    added: readonly AuthorityRecord[] = [],
  ): Promise<void> {
    const changed = this.all.map(change).filter((record) => record !== undefined)
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
