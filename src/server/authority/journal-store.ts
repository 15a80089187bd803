import { AssayError, messageOf } from '#base/errors.ts'
import type { Datastore } from '../datastore/datastore.ts'
import { type AuthorityJournal, emptyJournal, encodeJournal, parseJournal } from './journal.ts'

/** One server's journal: the present value in memory, and every change durable before it counts. */
export class JournalStore {
  readonly #datastore: Pick<Datastore, 'putJournal'>
  readonly #server: string
  #value: AuthorityJournal

  private constructor(
    datastore: Pick<Datastore, 'putJournal'>,
    start: { readonly server: string; readonly value: AuthorityJournal },
  ) {
    this.#datastore = datastore
    this.#server = start.server
    this.#value = start.value
  }

  /** @throws AssayError `failed-precondition` when the journal that is there cannot be read. */
  static async open(
    datastore: Pick<Datastore, 'journal' | 'putJournal'>,
    server: string,
  ): Promise<JournalStore> {
    const document = await datastore.journal(server)
    const value = document === undefined ? emptyJournal : readJournal(document)
    return new JournalStore(datastore, { server, value })
  }

  get value(): AuthorityJournal {
    return this.#value
  }

  async save(value: AuthorityJournal): Promise<void> {
    await this.#datastore.putJournal(this.#server, encodeJournal(value))
    this.#value = value
  }
}

function readJournal(document: string): AuthorityJournal {
  try {
    return parseJournal(document)
  } catch (cause) {
    throw new AssayError(
      'failed-precondition',
      `cannot know our authorities: ${messageOf(cause)}; restore the datastore from a backup`,
      { reason: 'journal-unreadable', cause },
    )
  }
}
