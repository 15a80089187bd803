import type { Limited } from './api/limits.ts'
import type { SvidDefaults } from './ca/issuer.ts'
import type { ServerConfig } from './config.ts'

/** What is looked up each time it is needed, so that a reload reaches it. */
export class LiveSettings {
  /** They read on what the configuration says now; the issuer stays as it was at the start. */
  readonly svidDefaults: SvidDefaults
  #config: ServerConfig

  constructor(config: ServerConfig) {
    this.#config = config
    const now = (): ServerConfig => this.#config
    this.svidDefaults = {
      get x509SvidTtlSeconds() {
        return now().default_x509_svid_ttl
      },
      get agentSvidTtlSeconds() {
        return now().agent_ttl
      },
      get jwtSvidTtlSeconds() {
        return now().default_jwt_svid_ttl
      },
      jwtIssuer: config.jwt_issuer,
    }
  }

  get replacementSpreadSeconds(): number {
    return this.#config.replacement_spread
  }

  isLimited(limited: Limited): boolean {
    return this.#config.ratelimit[limited]
  }

  /** The configuration has been read again. */
  replace(config: ServerConfig): void {
    this.#config = config
  }
}
